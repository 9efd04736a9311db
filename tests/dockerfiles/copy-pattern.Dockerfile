ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY data/*.txt /txt/
COPY data/t?o.txt /two/
COPY d*/[ot]*.txt /class/
COPY app/c* /conf/
