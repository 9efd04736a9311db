ARG REGISTRY
FROM ${REGISTRY}/busybox
SHELL ["/bin/sh", "-eu", "-c"]
RUN echo "$-" | grep -q e && echo strict > /strict
CMD ["/bin/sh", "-eu", "-c", "echo with shell"]
ENTRYPOINT ["/bin/sh", "-eu", "-c", "echo entry"]
