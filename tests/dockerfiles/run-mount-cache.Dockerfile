ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN --mount=type=cache,target=/cache echo cached > /cache/file && cp /cache/file /copy
