ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY --chmod=600 data/one.txt /one.txt
COPY --chmod=4755 app/main.sh /suid.sh
COPY --chmod=0744 data/one.txt /bin/
