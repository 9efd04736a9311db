#!/bin/sh
# Makes the network of {{ fleet | comment }} on the Nomad client that runs it: as root, with dnsmasq,
# iproute2 and nftables, after every start of the client. `network.sh stop` takes it away. Made by
# dock2uni.
set -eu
cd "$(dirname "$0")"
run={{ ("/run/dock2uni/" ~ fleet) | sh }}
mkdir -p "$run"

if [ "${1:-}" = stop ]; then
    [ ! -e "$run/dnsmasq.pid" ] || kill "$(cat "$run/dnsmasq.pid")" 2>/dev/null || :
    rm -f "$run/dnsmasq.pid"
{%- include "bridge-down.sh" %}
    exit 0
fi

{% include "bridge.sh" %}
