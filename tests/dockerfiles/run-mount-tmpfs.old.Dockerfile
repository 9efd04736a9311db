ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo lost > /found
