#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Inside the virtual machine: the kernel's own VFIO tests on a function without a definition, bound to vfio-pci and then to
# vfio-pci-hooks. Each single test has to end the same way.
# Usage: selftests.sh PROGRAMS MODULE all|type1
set -uo pipefail

programs=$1 module=$2 what=$3
read -r vf _ <<<"$HOOKLINE_VM_VFS"

# The variants of type1 need neither IOMMUFD nor character devices.
names=()
for mode in vfio_type1_iommu vfio_type1v2_iommu; do
	names+=(-v "$mode" -v "${mode}_anonymous" -v "${mode}_anonymous_hugetlb_2mb" -v "${mode}_anonymous_hugetlb_1gb")
done
case $what in
all)
	runs=("vfio_pci_device_test" "vfio_dma_mapping_test" "vfio_dma_mapping_mmio_test" "vfio_iommufd_setup_test")
	at_least=45
	;;
type1)
	runs=("vfio_dma_mapping_test ${names[*]}" "vfio_dma_mapping_mmio_test ${names[*]}")
	at_least=12
	;;
esac

insmod "$module" || exit 1

# Prints one line per test: its result and its name.
results_on() {
	local driver=$1 run
	echo "$driver" >"/sys/bus/pci/devices/$vf/driver_override"
	echo "$vf" >/sys/bus/pci/drivers_probe
	[[ $(readlink "/sys/bus/pci/devices/$vf/driver") == */$driver ]] || { echo "$vf is not bound to $driver" >&2; return 1; }
	for run in "${runs[@]}"; do
		# shellcheck disable=SC2086 # a program and its options
		"$programs"/$run "$vf" >"/results/$driver-${run%% *}.txt" 2>&1
		sed -nE "s/^(ok|not ok) [0-9]+ /${run%% *} \1 /p" "/results/$driver-${run%% *}.txt" | sed 's/ # SKIP.*/ SKIP/'
	done
	echo "$vf" >"/sys/bus/pci/devices/$vf/driver/unbind"
}

results_on vfio-pci >/results/stock || exit 1
results_on vfio-pci-hooks >/results/hooks || exit 1
rmmod vfio_pci_hooks || exit 1

skipped=$(grep -c ' SKIP$' /results/hooks)
failed=$(grep -c ' not ok ' /results/hooks)
passed=$(($(grep -c . /results/hooks) - skipped - failed))
echo "$passed passed, $failed failed, $skipped skipped; what is different:"
# The tests are newer than a kernel that can do type1 alone, and what they expect of it may be, too: then vfio-pci fails as well.
if ! diff /results/stock /results/hooks || ((passed < at_least)) || [[ $what == all && $failed != 0 ]]; then
	tail -n 30 /results/vfio-pci-hooks-*.txt
	exit 1
fi
grep ' not ok ' /results/hooks
echo "CH3 the kernel's own VFIO tests end on an empty chain as they do on vfio-pci"
