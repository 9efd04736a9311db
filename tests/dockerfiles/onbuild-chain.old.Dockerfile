ARG REGISTRY
FROM ${REGISTRY}/busybox
ARG WHERE=/made
WORKDIR /made
COPY --chmod=600 data/*.txt ./
RUN ["/bin/sh", "-c", "pwd > here"]
LABEL by=parent
ENV FROM=child
RUN echo "$FROM" > child
