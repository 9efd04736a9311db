ARG REGISTRY
FROM ${REGISTRY}/busybox AS made
RUN mkdir -p /src/a/b/c /src/a/d && echo 1 > /src/a/b/c/one && echo 2 > /src/a/d/two && echo 3 > /src/a/three && chown -R 5:6 /src/a
FROM ${REGISTRY}/busybox
COPY --from=made /src/a/b /kept/a/b
COPY --from=made /src/a/d/two /kept/a/d/two
COPY --from=made /src/a/three /globbed/a/three
RUN mkdir -p /less/b && chown 5:6 /kept/a /kept/a/b /kept/a/d /less/b /globbed/a
