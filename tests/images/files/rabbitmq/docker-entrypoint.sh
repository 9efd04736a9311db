#!/bin/bash
# Gives up root for RabbitMQ's own programs, and becomes the command.
set -euo pipefail

if [[ "$1" == rabbitmq* ]] && [ "$(id -u)" = 0 ]; then
    if [ "$1" = rabbitmq-server ]; then
        find /var/lib/rabbitmq \! -user rabbitmq -exec chown rabbitmq '{}' +
    fi
    exec gosu rabbitmq "$BASH_SOURCE" "$@"
fi

# Settings by variables are gone since 3.9: say so, as they would be missed in silence.
for name in DEFAULT_PASS_FILE DEFAULT_USER_FILE MANAGEMENT_SSL_CACERTFILE SSL_CACERTFILE; do
    variable=RABBITMQ_$name
    if [ -n "${!variable:-}" ]; then
        echo >&2 "error: $variable is set but no longer supported; use a configuration file"
        exit 1
    fi
done

conf=/etc/rabbitmq/conf.d/20-variables.conf
for name in DEFAULT_USER DEFAULT_PASS DEFAULT_VHOST; do
    variable=RABBITMQ_$name
    key=${name,,}
    [ -z "${!variable:-}" ] || echo "$key = ${!variable}" >>"$conf"
done

# Who stores the cookie keeps it to themselves: Erlang insists.
if [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ]; then
    cookie=/var/lib/rabbitmq/.erlang.cookie
    (umask 077 && echo "$RABBITMQ_ERLANG_COOKIE" >"$cookie")
    chmod 600 "$cookie"
fi

exec "$@"
