ARG REGISTRY
FROM ${REGISTRY}/busybox
ADD bundle.tar /plain/
ADD bundle.tar.gz /gz
ADD bundle.tar.bz2 bundle.tar.xz /more/
ADD readme.md /readme.md
COPY bundle.tar.gz /packed/
