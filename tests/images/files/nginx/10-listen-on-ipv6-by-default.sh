#!/bin/sh
# Makes the default server listen on IPv6 too, if the kernel has it and nobody edited the file.
set -e

me=$(basename "$0")
conf=etc/nginx/conf.d/default.conf

say() {
    [ -n "${NGINX_ENTRYPOINT_QUIET_LOGS:-}" ] || echo "$me: $*"
}

if [ ! -f /proc/net/if_inet6 ]; then
    say "info: ipv6 not available"
    exit 0
fi
if [ ! -f "/$conf" ]; then
    say "info: /$conf is not a file or does not exist"
    exit 0
fi
if ! touch "/$conf" 2>/dev/null; then
    say "info: can not modify /$conf (read-only file system?)"
    exit 0
fi
if grep -q "listen  \[::]\:80;" "/$conf"; then
    say "info: IPv6 listen already enabled"
    exit 0
fi

[ ! -f /etc/os-release ] || . /etc/os-release
say "info: Getting the checksum of /$conf"
case "${ID:-}" in
debian)
    sum=$(dpkg-query --show --showformat='${Conffiles}\n' nginx | grep "$conf" | cut -d' ' -f 3)
    if ! echo "$sum  /$conf" | md5sum -c - >/dev/null 2>&1; then
        say "info: /$conf differs from the packaged version"
        exit 0
    fi
    ;;
*)
    say "info: Unsupported distribution"
    exit 0
    ;;
esac

sed -i -E 's,listen       80;,listen       80;\n    listen  [::]:80;,' "/$conf"
say "info: Enabled listen on IPv6 in /$conf"
