# Written on another system.
ARG REGISTRY
FROM ${REGISTRY}/busybox
ENV A=1 \
    B="two words"
RUN echo "$A" \
  "$B" > /out
COPY data/one.txt \
  /one.txt
CMD ["/bin/sh", "-c", "true"]
