#!/bin/sh
# What is no command on its own is node's: its options, and scripts to run.
set -e

is_command() {
    case "$1" in -*) return 1 ;; esac
    command -v "$1" >/dev/null || return 1
    # A script in the working directory that isn't executable.
    ! [ -f "$1" ] || [ -x "$1" ]
}

is_command "$1" || set -- node "$@"
exec "$@"
