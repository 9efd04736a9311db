ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY data /data
COPY data/two.txt /run.txt
COPY app/main.sh /suid.sh
COPY app/conf /conf
RUN chmod u=rwX,go=rX /data/* && chmod a+x /run.txt && chmod go-rwx,u+s /suid.sh && chmod g=u /conf/* /conf/extra/*
