ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN --mount=type=secret,id=key cat /run/secrets/key > /copied
RUN --mount=type=secret,id=key,env=KEY echo "$KEY" > /env
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
