ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN <<EOF
set -e
echo one > /one
echo "$HOME" > /two
EOF
RUN cat <<'A' > /quoted && cat <<B > /plain
$HOME
A
$HOME
B
RUN <<SCRIPT
#!/bin/sh
echo script > /script
SCRIPT
RUN <<-TABS
	echo tabs > /tabs
	TABS
