#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Inside the virtual machine: displays of both kinds move with the shipped plugin, and then everything goes away again.
# Usage: gpu_moves.sh SOURCES BUILD MODULE
set -euo pipefail

sources=$1 build=$2 module=$3
hookline=$build/userspace-loader/hookline

insmod "$module"
# The example, with patience for an emulated machine on a busy host, and once more for the other displays.
sed 's/^    chain:/    limits: { access: 5s }\n    chain:/' "$sources/configs/gpu.yaml" >/run/bochs.yaml
sed 's/0000:00:08\.0/0000:00:0a.0/; s/0000:00:09\.0/0000:00:0b.0/' /run/bochs.yaml >/run/vga.yaml
sed 's/0000:00:08\.0/0000:00:0c.0/; s/0000:00:09\.0/0000:00:0d.0/' /run/bochs.yaml >/run/much.yaml
for kind in bochs vga much; do "$hookline" apply "/run/$kind.yaml"; done
move() {
	"$build/tests/kernel/gpu_moves" "$@" || { tail -n 40 /run/hookline/*.log >&2; exit 1; }
}
move 0000:00:08.0 bochs0 0000:00:09.0 bochs1
move 0000:00:0a.0 vga0 0000:00:0b.0 vga1
move 0000:00:0c.0 much0 0000:00:0d.0 much1
# The worker never died of it.
! grep -i "worker.*\(died\|ended\|signal\)" /run/hookline/*.log || { echo "FAILED: a worker died" >&2; exit 1; }
"$hookline" detach --all
rmmod vfio_pci_hooks
