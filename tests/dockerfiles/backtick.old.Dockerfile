ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo one  two > /c:out &&  echo 'back\slash' > /b
ENV P=C:\\dir\\ Q=a\ b R="say \"hi\""
LABEL path="C:\\new\\table" tick="`"
COPY data/one.txt readme.md /copied/
WORKDIR /w\\in
