ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY --chmod=u=rwX,go=rX data /data
COPY --chmod=a+x data/two.txt /run.txt
COPY --chmod=go-rwx,u+s app/main.sh /suid.sh
COPY --chmod=g=u app/conf /conf
