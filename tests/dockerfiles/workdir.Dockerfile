ARG REGISTRY
FROM ${REGISTRY}/busybox
WORKDIR /a
WORKDIR b
WORKDIR ../c/./d
RUN pwd > where
WORKDIR /etc
RUN pwd > /where
