ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY ["spaced name.txt", "/spaced dir/"]
COPY ["data/one.txt", "data/two.txt", "/list/"]
