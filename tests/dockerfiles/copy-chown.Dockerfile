ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo "web:x:33:34::/:/bin/false" >> /etc/passwd && echo "staff:x:50:" >> /etc/group
COPY --chown=web data /by-name
COPY --chown=web:staff app /by-both
COPY --chown=1000:2000 readme.md /numeric/readme.md
COPY --chown=1000 readme.md /alone.md
