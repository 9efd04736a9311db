ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY . /all/
RUN chmod 750 /all/app/conf
