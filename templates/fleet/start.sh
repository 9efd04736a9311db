#!/bin/sh
# Starts {{ fleet | comment }} under {{ monitor }}, those first that others need: as root, with dnsmasq,
# iproute2, nftables and netcat{{ ", and xorriso or genisoimage" if items else "" }}. `start.sh stop` ends it. Made by dock2uni.
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
{%- if items %}
    rm -f "$run"/*.iso
{%- endif %}
{%- include "bridge-down.sh" %}
    exit 0
fi
{%- if timers %}

# What timers start, when the others are there: `start.sh run NAME`.
{%- for machine in machines if machine.timer %}
if [ "${1:-} ${2:-}" = {{ ("run " ~ machine.name) | sh }} ]; then
{% include "monitor.sh" %}
fi
{%- endfor %}
{%- endif %}
{%- if items %}

{% include "secrets.sh" %}
{%- endif %}

{% include "bridge.sh" %}
{%- for machine in machines if not machine.timer %}

start() {
{% include "monitor.sh" %}
}
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
