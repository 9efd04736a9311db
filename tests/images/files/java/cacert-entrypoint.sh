#!/usr/bin/env bash
# Becomes the command. With USE_SYSTEM_CA_CERTS set, the JVM trusts what the system trusts.
set -e

if [ -n "$USE_SYSTEM_CA_CERTS" ] && command -v trust >/dev/null; then
    store=$(mktemp -d)/cacerts
    trust extract --overwrite --format=java-cacerts --filter=ca-anchors --purpose=server-auth "$store"
    export JAVA_TOOL_OPTIONS="$JAVA_TOOL_OPTIONS -Djavax.net.ssl.trustStore=$store"
fi

exec "$@"
