ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY app /srv/app
COPY app/conf/ /etc/app/
COPY data /srv/app/data/
