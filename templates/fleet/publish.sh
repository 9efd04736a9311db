#!/bin/sh
# The way out of the network of {{ fleet | comment }} on this host, and published ports of the host: as
# root, with nftables. `network.sh stop` takes it away. Made by dock2uni.
set -eu
if [ "${1:-}" = stop ]; then
    nft delete table ip {{ table }}
    exit 0
fi
echo 1 >/proc/sys/net/ipv4/ip_forward
{% include "publish.nft" %}
