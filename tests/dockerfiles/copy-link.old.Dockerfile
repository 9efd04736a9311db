ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY data /linked/data
COPY --chown=5:6 readme.md /linked/readme.md
RUN chown 5:6 /linked
