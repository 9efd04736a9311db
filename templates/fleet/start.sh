#!/bin/sh
# Starts {{ fleet | comment }} under {{ monitor }}, those first that others need: as root, with dnsmasq,
# iproute2, nftables and netcat. `start.sh stop` ends it. Made by dock2uni.
set -eu
cd "$(dirname "$0")"
run={{ ("/run/dock2uni/" ~ fleet) | sh }}
mkdir -p "$run"

if [ "${1:-}" = stop ]; then
    for file in "$run"/*.pid; do
        [ -e "$file" ] || continue
        kill "$(cat "$file")" 2>/dev/null || :
        rm -f "$file"
    done
{%- for machine in machines %}
    ip link del {{ machine.tap }} 2>/dev/null || :
{%- endfor %}
    ip link del {{ bridge }} 2>/dev/null || :
    nft delete table ip {{ bridge }} 2>/dev/null || :
    exit 0
fi

if ! ip link show {{ bridge }} >/dev/null 2>&1; then
    ip link add {{ bridge }} type bridge
    ip addr add {{ gateway }}/24 dev {{ bridge }}
    ip link set {{ bridge }} up
fi
# The way out, and published ports.
echo 1 >/proc/sys/net/ipv4/ip_forward
nft -f - <<-RULES
	table ip {{ bridge }}
	delete table ip {{ bridge }}
	table ip {{ bridge }} {
		chain postrouting {
			type nat hook postrouting priority srcnat;
			ip saddr 10.0.2.0/24 oifname != "{{ bridge }}" masquerade
		}
		chain prerouting {
			type nat hook prerouting priority dstnat;
{%- for one in published %}
			fib daddr type local {{ one.port.proto }} dport {{ one.port.host }} dnat to {{ one.address }}:{{ one.port.guest }}
{%- endfor %}
		}
	}
RULES
dnsmasq --conf-file="$PWD/dnsmasq.conf" --pid-file="$run/dnsmasq.pid"
{%- for machine in machines %}

ip tuntap add {{ machine.tap }} mode tap
ip link set {{ machine.tap }} master {{ bridge }} up
{%- if monitor == "Firecracker" %}
start() {
    rm -f "$run/{{ machine.name }}.sock"
    exec "${FIRECRACKER:-firecracker}" --api-sock "$run/{{ machine.name }}.sock" \
        --config-file {{ (machine.name ~ ".json") | sh }}
}
{%- else %}
start() {
    exec "${CLOUD_HYPERVISOR:-cloud-hypervisor}" \
        --kernel {{ (machine.boot ~ "/kernel") | sh }} \
        --initramfs {{ (machine.boot ~ "/record.img") | sh }} \
        --cpus boot={{ machine.cpus }} --memory size={{ machine.memory }}M \
        --disk path={{ (machine.boot ~ "/root.erofs") | sh }},readonly=on
{%- for volume in machine.volumes %} \
            path={{ volume.path | sh }}{{ ",readonly=on" if volume.read_only else "" }}
{%- endfor %} \
        --net {{ ("tap=" ~ machine.tap ~ ",mac=" ~ machine.mac) | sh }} \
        --rng src=/dev/urandom --serial tty --console off
}
{%- endif %}
{%- if machine.restart == "always" %}
# It is started again whenever it ends.
(trap 'kill "$vm"; exit' TERM
while :; do (start) & vm=$!; wait "$vm" || :; sleep 1; done) >"$run/{{ machine.name }}.log" 2>&1 </dev/null &
{%- else %}
(start) >"$run/{{ machine.name }}.log" 2>&1 </dev/null &
{%- endif %}
echo $! >"$run/{{ machine.name }}.pid"
{%- if machine.probe %}
tries=0
until nc -z {{ machine.address }} {{ machine.probe.port }} 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { echo {{ (machine.name ~ " does not answer") | sh }} >&2; exit 1; }
    sleep 1
done
{%- endif %}
{%- endfor %}
