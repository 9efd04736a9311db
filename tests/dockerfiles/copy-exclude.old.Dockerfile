ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY data/one.txt /some/
COPY app/main.sh /app/
COPY app/conf/app.conf /app/conf/app.conf
RUN mkdir /app/empty && chmod 750 /app/conf
