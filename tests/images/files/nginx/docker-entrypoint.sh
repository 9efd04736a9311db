#!/bin/sh
# Prepares the configuration by the scripts in /docker-entrypoint.d, then becomes the command.
set -e

scripts=/docker-entrypoint.d/

say() {
    [ -n "${NGINX_ENTRYPOINT_QUIET_LOGS:-}" ] || echo "$0: $*"
}

case "$1" in
nginx | nginx-debug)
    if find "$scripts" -mindepth 1 -maxdepth 1 -type f -print -quit 2>/dev/null | read -r _; then
        say "$scripts is not empty, will attempt to perform configuration"
        say "Looking for shell scripts in $scripts"
        find "$scripts" -follow -type f -print | sort -V | while read -r script; do
            case "$script" in
            *.envsh)
                if [ -x "$script" ]; then
                    say "Sourcing $script"
                    . "$script"
                else
                    say "Ignoring $script, not executable"
                fi
                ;;
            *.sh)
                if [ -x "$script" ]; then
                    say "Launching $script"
                    "$script"
                else
                    say "Ignoring $script, not executable"
                fi
                ;;
            *) say "Ignoring $script" ;;
            esac
        done
        say "Configuration complete; ready for start up"
    else
        say "No files found in $scripts, skipping configuration"
    fi
    ;;
esac

exec "$@"
