#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Inside the virtual machine: many moves with the shipped plugin, and then everything goes away again without a trace.
# Usage: nic_moves.sh SOURCES BUILD MODULE MOVES
set -euo pipefail

sources=$1 build=$2 module=$3 moves=$4
read -ra vfs <<<"$HOOKLINE_VM_VFS"
hookline=$build/userspace-loader/hookline
pf=/sys/bus/pci/devices/$HOOKLINE_VM_PFS/driver

insmod "$module"
"$hookline" apply "$sources/configs/demo.yaml"
move() {
	"$build/tests/kernel/nic_moves" "$1" "${vfs[0]}" "${vfs[1]}" || { tail -n 40 /run/hookline/*.log >&2; exit 1; }
}
move "$moves"

# The administrator has given the destination another address, which a VF may not change by its mailbox: the supervisor does.
netdev=$(basename /sys/bus/pci/devices/"$HOOKLINE_VM_PFS"/net/*)
admin=02:00:00:00:00:99
ip link set "$netdev" vf 1 mac $admin
echo 1 >/sys/kernel/tracing/events/vfio_pci_hooks/enable
move 20
echo 0 >/sys/kernel/tracing/events/vfio_pci_hooks/enable
! ip link show "$netdev" | grep -q "vf 1 .*$admin" || { echo "FAILED: VF 1 still has the address $admin" >&2; exit 1; }
grep -q "set the address .* for the VF on its PF" /run/hookline/*.log || { echo "FAILED: the log does not say so" >&2; exit 1; }

# CH1: what was mediated, by whom and with which answer, can be followed from outside.
for event in 'access: 0000:01:10\.[02] channel write region 0 offset 0xc40 length 4 value 0x[0-9a-f]* answer [01]' \
	'state: 0000:01:10\.2 .*' 'program: 0000:01:10\.0 .*'; do
	grep -q "$event" /sys/kernel/tracing/trace || { echo "FAILED: no trace of $event" >&2; exit 1; }
done
"$hookline" describe nic-82576 --trace /sys/kernel/tracing/trace | grep "channel write region 0 offset 0xc40 (V2PMAILBOX)" >/dev/null ||
	{ echo "FAILED: the trace has no names" >&2; exit 1; }

# A reference that was not given back would keep the module.
"$hookline" detach --all
# LD2: what the supervisor had replaced is the administrator's again.
ip link show "$netdev" | grep -q "vf 1 .*$admin" || { echo "FAILED: VF 1 has not got its address $admin back" >&2; exit 1; }
[[ -z $(ls /run/hookline | grep -v '^lock$') ]] || { echo "FAILED: detach left $(ls /run/hookline)" >&2; exit 1; }
rmmod vfio_pci_hooks
[[ $(readlink "$pf") == */igb ]] || { echo "FAILED: the PF is not bound to igb any more" >&2; exit 1; }
echo "LD4 RL1 $moves moves, an address of the administrator, detached, module unloaded"
