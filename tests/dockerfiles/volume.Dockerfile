ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN mkdir -p /data /logs /two && echo in > /data/file
VOLUME /data /logs
VOLUME ["/two"]
