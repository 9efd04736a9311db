ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN mkdir -p /srv/data && echo old > /srv/data/one.txt && echo keep > /srv/data/keep && chmod 700 /srv/data
COPY data /srv/data
COPY data/two.txt /srv/data/one.txt
