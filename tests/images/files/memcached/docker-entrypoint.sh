#!/bin/sh
# Makes options memcached's, and becomes the command.
set -e

case "$1" in
-*) set -- memcached "$@" ;;
esac

exec "$@"
