ARG REGISTRY
FROM ${REGISTRY}/busybox
WORKDIR /deep/er
COPY readme.md .
COPY data ./data
COPY app/main.sh bin/
WORKDIR ../other
COPY readme.md here.md
