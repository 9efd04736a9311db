ARG REGISTRY
FROM ${REGISTRY}/busybox
CMD echo hello
