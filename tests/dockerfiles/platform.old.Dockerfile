ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo linux/amd64 > /target
LABEL arch=unset platform=linux/other
