#!/bin/sh
# Starts {{ fleet | comment }} under {{ monitor }}, those first that others need: as root, with dnsmasq,
# iproute2, nftables and netcat. `start.sh stop` ends it. Made by dock2uni.
set -eu
cd "$(dirname "$0")"
run={{ ("/run/dock2uni/" ~ fleet) | sh }}
mkdir -p "$run"
{% include "wait.sh" %}

if [ "${1:-}" = stop ]; then
    for file in "$run"/*.pid; do
        [ -e "$file" ] || continue
        kill "$(cat "$file")" 2>/dev/null || :
        rm -f "$file"
    done
{%- include "bridge-down.sh" %}
    exit 0
fi

{% include "bridge.sh" %}
{%- for machine in machines %}

{% if monitor == "Firecracker" -%}
start() {
    rm -f "$run/{{ machine.name }}.sock"
    exec "${FIRECRACKER:-firecracker}" --api-sock "$run/{{ machine.name }}.sock" \
        --config-file {{ (machine.name ~ ".json") | sh }}
}
{%- else -%}
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
answers {{ machine.address }} {{ machine.probe.port }} {{ machine.name | sh }}
{%- endif %}
{%- endfor %}
