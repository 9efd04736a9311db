ARG REGISTRY
FROM ${REGISTRY}/busybox AS made
RUN mkdir -p /src/a/b/c /src/a/d && echo 1 > /src/a/b/c/one && echo 2 > /src/a/d/two && echo 3 > /src/a/three && chown -R 5:6 /src/a
FROM ${REGISTRY}/busybox
COPY --from=made --parents /src/./a/b /src/./a/d/two /kept/
COPY --from=made --parents --exclude=c /src/a/./b/ /less/
COPY --from=made --parents /src/./*/t* /globbed/
