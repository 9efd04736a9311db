#!/bin/sh
# Makes a VM of {{ name | comment }} on a Proxmox VE node. Made by dock2uni.
# Usage: sh {{ name | comment }}.proxmox.sh [VMID [STORAGE [BRIDGE]]]
set -eu
vmid="${1:-$(pvesh get /cluster/nextid)}"
storage="${2:-local-lvm}"
bridge="${3:-vmbr0}"
image={{ image | sh }}

qm create "$vmid" --name {{ k8s_name | sh }} --ostype l26 --machine q35 \
    --memory {{ memory }} --cores {{ cpus }} --cpu host --balloon 0 \
    --net0 "virtio,bridge=$bridge" --rng0 source=/dev/urandom \
    --serial0 socket --vga serial0 --onboot 1 --startup {{ ("down=" ~ (grace + 5)) | sh }}
qm importdisk "$vmid" "$image" "$storage" --format raw
disk="$(qm config "$vmid" | sed -n 's/^unused0: //p')"
qm set "$vmid" --virtio0 "$disk" --boot order=virtio0
echo "start it with: qm start $vmid"
