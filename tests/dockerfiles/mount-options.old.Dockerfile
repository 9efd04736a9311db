ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo '750 11:12' > /stat && echo kept > /again && echo changed > /seen && echo stage > /untouched && echo 1 > /tmpfs && echo '444 5' > /key
