ARG REGISTRY
FROM ${REGISTRY}/busybox
ENV P=/usr/local/lib:/usr/lib F=archive.tar.gz
ENV S1=${P#*/} S2=${P##*/} S3=${F%.*} S4=${F%%.*} S5=${F/ar/AR} S6=${F//a/A} S7=${NONE-dash}
RUN echo "$S1 $S2 $S3 $S4 $S5 $S6 $S7" > /out
