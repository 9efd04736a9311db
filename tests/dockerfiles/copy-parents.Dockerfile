ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY --parents data/one.txt app/conf/extra/x.txt /kept/
COPY --parents ./app/./conf/extra /pivot/
COPY --parents ./**/*.conf /deep/
