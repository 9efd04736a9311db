ARG REGISTRY
FROM ${REGISTRY}/busybox
HEALTHCHECK CMD ["/bin/true", "arg"]
HEALTHCHECK NONE
HEALTHCHECK --interval=5s CMD ["/bin/check"]
