#!/bin/sh
# Pushes the disks of {{ fleet | comment }} to where kubevirt.yaml looks for them. Made by dock2uni.
set -eu
{%- for machine in machines | unique(attribute="reference") %}
"${DOCK2UNI:-dock2uni}" push {{ machine.disk | sh }} {{ machine.reference | sh }} --as container-disk "$@"
{%- endfor %}
