ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo "app:x:1000:1001::/home/app:/bin/sh" >> /etc/passwd && echo "staff:x:50:app" >> /etc/group
COPY --chown=app:staff data/one.txt /named
COPY --chown=app data/one.txt /primary
COPY --chown=77 data/one.txt /number
ENV HOMEDIR=home
WORKDIR /$HOMEDIR
WORKDIR ./sub/../app
USER app
COPY data/one.txt copied
RUN pwd > /tmp/pwd && id -G > /tmp/groups
