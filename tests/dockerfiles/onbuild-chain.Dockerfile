ARG REGISTRY
FROM ${REGISTRY}/busybox AS parent
ONBUILD ARG WHERE=/made
ONBUILD WORKDIR ${WHERE}
ONBUILD COPY --chmod=600 data/*.txt ./
ONBUILD RUN ["/bin/sh", "-c", "pwd > here"]
ONBUILD LABEL by=parent
FROM parent AS child
ONBUILD ENV FROM=child
FROM child AS grandchild
RUN echo "$FROM" > child
