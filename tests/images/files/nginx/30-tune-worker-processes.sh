#!/bin/sh
# Sets the number of workers to the processors that the control group allows, if asked to.
set -eu

me=$(basename "$0")
conf=/etc/nginx/nginx.conf

[ -n "${NGINX_ENTRYPOINT_WORKER_PROCESSES_AUTOTUNE:-}" ] || exit 0

if ! touch "$conf" 2>/dev/null; then
    echo "$me: error: can not modify $conf (read-only file system?)" >&2
    exit 0
fi

workers=$(getconf _NPROCESSORS_ONLN)
if [ -r /sys/fs/cgroup/cpu.max ]; then
    read -r quota period </sys/fs/cgroup/cpu.max
    if [ "$quota" != max ]; then
        allowed=$(((quota + period - 1) / period))
        [ "$allowed" -ge "$workers" ] || workers=$allowed
    fi
fi

sed -i.bak -E "s/^(worker_processes)[[:space:]].*$/# Changed by $me\n\1 $workers;/" "$conf"
