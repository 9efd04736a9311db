ARG REGISTRY
FROM ${REGISTRY}/busybox AS base
RUN echo base > /base
FROM base AS wanted
RUN echo wanted > /wanted
FROM base AS unwanted
RUN false
