#!/bin/sh
# Runs {{ name | comment }} in QEMU. Made by dock2uni; further options go to QEMU.
# KVM where it is, else QEMU's translator; ACCEL=tcg where KVM does not work.
set -eu
if [ -w /dev/kvm ]; then accel="${ACCEL:-kvm}"; else accel="${ACCEL:-tcg}"; fi
if [ "$accel" = kvm ]; then cpu=host; else cpu=max; fi
exec "${QEMU:-qemu-system-x86_64}" \
    -nodefaults -no-user-config -no-reboot -display none -serial stdio \
    -machine q35,usb=off,smbus=off,vmport=off -accel "$accel" -cpu "$cpu" \
    -smp {{ cpus }} -m {{ memory }}M \
    -drive {{ ("if=none,id=root,format=" ~ qemu_format ~ ",readonly=on,file=" ~ (image | qemu)) | sh }} \
    -device virtio-blk-pci,disable-legacy=on,drive=root,bootindex=0 \
    -netdev {{ ("user,id=net" ~ forwards) | sh }} \
    -device virtio-net-pci,disable-legacy=on,netdev=net,romfile= \
    -object rng-builtin,id=rng -device virtio-rng-pci,disable-legacy=on,rng=rng \
    "$@"
