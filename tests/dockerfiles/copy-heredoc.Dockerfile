ARG REGISTRY
FROM ${REGISTRY}/busybox
ENV NAME=world
COPY <<one <<"two" /files/
hello $NAME
one
literal $NAME
two
COPY --chmod=755 <<-EOF /bin/tool
	#!/bin/sh
	echo tool
	EOF
ADD <<EOF /single.txt
single
EOF
