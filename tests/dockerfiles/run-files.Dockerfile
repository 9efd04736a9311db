ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo data > /f && chmod 4755 /f && ln /f /hard && ln -s f /soft && ln -s /nowhere /dangling && mkfifo /pipe
RUN mkdir -m 1777 /sticky && mkdir /setgid && chmod 2750 /setgid && chown 12:34 /sticky && chown -h 5:6 /soft
RUN dd if=/dev/zero of=/zeros bs=1k count=100 2>/dev/null && truncate -s 1M /sparse
RUN chmod 700 /etc && chown 1:1 /etc/passwd && chmod 755 /
