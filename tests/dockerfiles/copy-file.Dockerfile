ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY readme.md /docs/readme.md
COPY readme.md /docs/sub/
COPY readme.md /
