ARG REGISTRY
FROM ${REGISTRY}/debian
RUN echo 'node:x:1000:' >> /etc/group \
  && echo 'node:x:1000:1000::/home/node:/bin/bash' >> /etc/passwd \
  && mkdir -p /home/node && chown node:node /home/node
ENV NODE_VERSION 22.12.0
RUN ARCH= && dpkgArch="$(uname -m)" \
  && case "${dpkgArch##*-}" in \
    x86_64) ARCH='x64';; \
    *) echo "unsupported architecture"; exit 1 ;; \
  esac \
  && set -ex && mkdir -p /usr/local/bin \
  && printf '#!/bin/sh\necho v%s-%s\n' "$NODE_VERSION" "$ARCH" > /usr/local/bin/node \
  && chmod +x /usr/local/bin/node \
  && ln -s /usr/local/bin/node /usr/local/bin/nodejs \
  # smoke tests
  && node --version
COPY app/main.sh /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
USER node
WORKDIR /home/node
COPY --chown=node:node data ./data
RUN node > version && touch data/new
CMD [ "node" ]
