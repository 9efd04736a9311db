ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY --link data /linked/data
COPY --link --chown=5:6 readme.md /linked/readme.md
