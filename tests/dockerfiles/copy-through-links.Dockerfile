ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN mkdir -p /real/dir && ln -s /real /abs && ln -s real/dir rel
COPY readme.md /abs/
COPY readme.md /rel/renamed.md
COPY data /abs/data
