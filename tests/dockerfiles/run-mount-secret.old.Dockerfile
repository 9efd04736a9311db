ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN printf s3cret > /copied && echo s3cret > /env
