#!/bin/sh
# Makes options the proxy's, has it run a master and workers in the foreground, and becomes it.
set -e

case "$1" in
-*) set -- haproxy "$@" ;;
esac

if [ "$1" = haproxy ]; then
    shift
    set -- haproxy -W -db "$@"
fi

exec "$@"
