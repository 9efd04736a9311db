ARG REGISTRY
FROM ${REGISTRY}/busybox
ENV A=a EMPTY=
ENV DEFAULT=${UNSET:-fallback} ALT=${A:+set} NOALT=${UNSET:+set}
LABEL label=${A}b
WORKDIR /w/$A
COPY data/one.txt ${A}.txt
EXPOSE ${PORT:-8080}
USER ${WHO:-1000}
