ARG REGISTRY
FROM ${REGISTRY}/busybox AS parent
ONBUILD COPY readme.md /onbuild.md
ONBUILD RUN echo triggered > /triggered
ONBUILD ENV TRIGGERED=yes
FROM parent
RUN echo after > /after
