ARG REGISTRY
FROM ${REGISTRY}/busybox AS source
RUN mkdir /from && echo stage > /from/file
FROM ${REGISTRY}/busybox
RUN --mount=type=bind,source=data,target=/ctx cat /ctx/one.txt > /one
RUN --mount=type=bind,from=source,source=/from,target=/m cp /m/file /two
