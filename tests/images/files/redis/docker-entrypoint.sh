#!/bin/sh
# Makes options the server's, gives up root, and becomes the command.
set -e

case "$1" in
-* | *.conf) set -- redis-server "$@" ;;
esac

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown redis {} +
    exec gosu redis "$0" "$@"
fi

# Data is nobody else's business, unless someone chose another mask.
[ "$(umask)" != 0022 ] || umask 0077

exec "$@"
