ARG REGISTRY
FROM ${REGISTRY}/busybox
ADD --chown=3:4 data /data
ADD --chmod=640 readme.md /readme
