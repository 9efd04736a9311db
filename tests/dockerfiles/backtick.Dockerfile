#	escape = `
ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo one ` 
# a comment between
 two > /c:out && `

 echo 'back\slash' > /b
ENV P=C:\dir\ Q=a` b R="say `"hi`""
LABEL path="C:\new\table" tick="``"
COPY data/o`ne.txt readme.md /copied/
WORKDIR /w\in
