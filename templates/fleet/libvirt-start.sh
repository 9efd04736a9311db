#!/bin/sh
# Starts {{ fleet | comment }} under libvirt, those first that others need: as root, with nftables
# and netcat. Made by dock2uni.
set -eu
cd "$(dirname "$0")"
virsh="${VIRSH:-virsh}"
{% include "wait.sh" %}

{%- for machine in machines %}
{%- for share in machine.shares %}
for file in{% for secret in share.secrets %} {{ secret.file | sh }}{% endfor %}; do
    file={{ ("/etc/dock2uni/" ~ fleet ~ "/secrets/" ~ share.name) | sh }}/$file
    [ -r "$file" ] || { echo "the secret $file is missing" >&2; exit 1; }
done
{%- endfor %}
{%- endfor %}
# The way out, and published ports of this host.
echo 1 >/proc/sys/net/ipv4/ip_forward
{% include "publish.nft" %}
"$virsh" net-info {{ fleet | sh }} >/dev/null 2>&1 || "$virsh" net-define {{ (fleet ~ "-network.xml") | sh }}
"$virsh" net-start {{ fleet | sh }} 2>/dev/null || true
{%- for machine in machines %}
"$virsh" define {{ (machine.name ~ ".xml") | sh }}
{%- if not machine.timer %}
"$virsh" start {{ (fleet ~ "-" ~ machine.name) | sh }}
{%- if machine.probe %}
answers {{ machine.address }} {{ machine.probe.port }} {{ machine.name | sh }}
{%- endif %}
{%- endif %}
{%- endfor %}
