if ! ip link show {{ bridge }} >/dev/null 2>&1; then
    ip link add {{ bridge }} type bridge
    ip addr add {{ gateway }}/24 dev {{ bridge }}
    ip link set {{ bridge }} up
fi
# The way out, and published ports.
echo 1 >/proc/sys/net/ipv4/ip_forward
{% include "publish.nft" %}
dnsmasq --conf-file="$PWD/dnsmasq.conf" --pid-file="$run/dnsmasq.pid"
{%- for machine in machines %}
ip tuntap add {{ machine.tap }} mode tap
ip link set {{ machine.tap }} master {{ bridge }} up
{%- endfor %}
