ARG REGISTRY
FROM ${REGISTRY}/busybox
MAINTAINER Some One <some@example.com>
LABEL x=y
