ARG REGISTRY
FROM ${REGISTRY}/busybox AS one
CMD ["inherited"]
FROM one AS two
ENTRYPOINT ["/bin/sh", "-c"]
FROM two
CMD ["echo", "new"]
ENTRYPOINT exec top -b
