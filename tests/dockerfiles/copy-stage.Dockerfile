ARG REGISTRY
FROM ${REGISTRY}/busybox AS first
RUN mkdir /out && echo built > /out/a && chown 7:8 /out/a && chmod 750 /out
FROM ${REGISTRY}/busybox
RUN mkdir /mid && echo mid > /mid/m
FROM ${REGISTRY}/busybox AS last
COPY --from=first /out /named
COPY --from=1 /mid/m /numbered/
COPY --from=first --chown=1:2 /out/a /owned
