ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo "app:x:1000:1000:app:/home/app:/bin/sh" >> /etc/passwd && echo "app:x:1000:" >> /etc/group && echo "extra:x:2000:app" >> /etc/group && mkdir -p /home/app && chown app:app /home/app
USER app
RUN id -u > /home/app/who && id -G >> /home/app/who && echo $HOME >> /home/app/who && touch /home/app/mine
USER 1234:5678
RUN id -u > /tmp/numeric; id -g >> /tmp/numeric
USER app:extra
RUN id -g > /tmp/group
