ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY data/one.txt /kept/data/
COPY app/conf/extra/x.txt /kept/app/conf/extra/
COPY app/conf/extra /pivot/conf/extra
COPY app/conf/app.conf /deep/app/conf/app.conf
RUN chmod 750 /deep/app/conf /kept/app/conf /pivot/conf
