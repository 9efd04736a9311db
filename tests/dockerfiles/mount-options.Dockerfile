ARG REGISTRY
FROM ${REGISTRY}/busybox AS source
RUN mkdir /from && echo stage > /from/file
FROM ${REGISTRY}/busybox
ARG DIR=/var/cache/app
RUN --mount=type=cache,id=corpus,target=$DIR,uid=11,gid=12,mode=0750 stat -c '%a %u:%g' $DIR > /stat && echo kept > $DIR/file
RUN --mount=target=/elsewhere,id=corpus,type=cache,sharing=locked cat /elsewhere/file > /again
RUN --mount=type=bind,from=source,source=/from,target=/m,rw echo changed > /m/file && cat /m/file > /seen
RUN --mount=from=source,target=/whole cat /whole/from/file > /untouched && ! touch /whole/x
RUN --mount=type=tmpfs,target=/t touch /t/x && grep -c ' /t tmpfs ' /proc/mounts > /tmpfs
RUN --mount=type=secret,id=key,target=/keys/k,mode=0444,uid=5 stat -c '%a %u' /keys/k > /key
