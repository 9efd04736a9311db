ARG REGISTRY
FROM ${REGISTRY}/busybox
SHELL ["/bin/sh", "-eu", "-c"]
RUN echo "$-" | grep -q e && echo strict > /strict
CMD echo with shell
ENTRYPOINT echo entry
