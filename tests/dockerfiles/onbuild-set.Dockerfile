ARG REGISTRY
FROM ${REGISTRY}/busybox
ONBUILD COPY readme.md /onbuild.md
ONBUILD RUN echo triggered > /triggered
