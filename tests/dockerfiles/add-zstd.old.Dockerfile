ARG REGISTRY
FROM ${REGISTRY}/busybox
ADD bundle.tar.zst /unpacked/
ADD bundle.tar.zst readme.md /owned/
RUN chown -hR 9:10 /owned && chmod 4755 /owned/top
