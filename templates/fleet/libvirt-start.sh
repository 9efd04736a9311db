#!/bin/sh
# Starts {{ fleet | comment }} under libvirt, those first that others need. Made by dock2uni.
set -eu
cd "$(dirname "$0")"
virsh="${VIRSH:-virsh}"
{%- for machine in machines if machine.secrets %}
for file in{% for secret in machine.secrets %} {{ secret.file | sh }}{% endfor %}; do
    file={{ ("/etc/dock2uni/" ~ fleet ~ "/secrets/" ~ machine.service) | sh }}/$file
    [ -r "$file" ] || { echo "the secret $file is missing" >&2; exit 1; }
done
{%- endfor %}
"$virsh" net-info {{ fleet | sh }} >/dev/null 2>&1 || "$virsh" net-define {{ (fleet ~ "-network.xml") | sh }}
"$virsh" net-start {{ fleet | sh }} 2>/dev/null || true
{%- for machine in machines %}
"$virsh" define {{ (machine.name ~ ".xml") | sh }}
"$virsh" start {{ (fleet ~ "-" ~ machine.name) | sh }}
{%- if machine.probe %}
tries=0
until nc -z {{ machine.address }} {{ machine.probe.port }} 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { echo {{ (machine.name ~ " does not answer") | sh }} >&2; exit 1; }
    sleep 1
done
{%- endif %}
{%- endfor %}
{%- if published %}
# Published ports of this host lead to the machines that serve them.
nft -f - <<-RULES
	table ip dock2uni_{{ fleet | replace("-", "_") }}
	delete table ip dock2uni_{{ fleet | replace("-", "_") }}
	table ip dock2uni_{{ fleet | replace("-", "_") }} {
		chain prerouting {
			type nat hook prerouting priority dstnat;
{%- for one in published %}
			fib daddr type local {{ one.port.proto }} dport {{ one.port.host }} dnat to {{ one.address }}:{{ one.port.guest }}
{%- endfor %}
		}
	}
RULES
{%- endif %}
