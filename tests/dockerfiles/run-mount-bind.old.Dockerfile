ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo one > /one && echo stage > /two
