ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY readme.md /onbuild.md
RUN echo triggered > /triggered
ENV TRIGGERED=yes
RUN echo after > /after
