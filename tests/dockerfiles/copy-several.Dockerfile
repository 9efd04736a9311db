ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY readme.md data/one.txt app/conf/app.conf /many/
COPY data app /many/both/
