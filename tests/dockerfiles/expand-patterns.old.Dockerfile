ARG REGISTRY
FROM ${REGISTRY}/busybox
ENV P=/usr/local/lib:/usr/lib F=archive.tar.gz
ENV S1=usr/local/lib:/usr/lib S2=lib S3=archive.tar S4=archive S5=ARchive.tar.gz S6=Archive.tAr.gz S7=dash
RUN echo "$S1 $S2 $S3 $S4 $S5 $S6 $S7" > /out
