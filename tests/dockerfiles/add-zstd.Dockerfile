ARG REGISTRY
FROM ${REGISTRY}/busybox
ADD bundle.tar.zst /unpacked/
ADD --chown=9:10 bundle.tar.zst readme.md /owned/
