ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY app/link /copied
COPY app /tree
COPY links /links
