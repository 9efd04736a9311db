ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY --exclude=*.md --exclude=t*.txt data /some
COPY --exclude=conf/extra --exclude=link app /app
