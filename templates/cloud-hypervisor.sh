#!/bin/sh
# Runs {{ name | comment }} in Cloud Hypervisor. Made by dock2uni; further options go to it.
set -eu
exec "${CLOUD_HYPERVISOR:-cloud-hypervisor}" \
    --kernel {{ (boot ~ "/kernel") | sh }} \
    --initramfs {{ (boot ~ "/record.img") | sh }} \
    --cpus boot={{ cpus }} --memory size={{ memory }}M \
    --disk path={{ (boot ~ "/root.erofs") | sh }},readonly=on \
    --net {{ ("tap=" ~ tap) | sh }} \
    --rng src=/dev/urandom \
    --serial tty --console off \
    "$@"
