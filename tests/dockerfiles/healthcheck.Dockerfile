ARG REGISTRY
FROM ${REGISTRY}/busybox
HEALTHCHECK --interval=30s --timeout=3s --start-period=1m --retries=4 CMD wget -q -O - http://localhost/ || exit 1
