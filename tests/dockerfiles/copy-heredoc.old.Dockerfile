ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN mkdir /files && echo hello world > /files/one && echo 'literal $NAME' > /files/two
RUN printf '#!/bin/sh\necho tool\n' > /bin/tool && chmod 755 /bin/tool && echo single > /single.txt
ENV NAME=world
