#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The loader on real functions, inside the virtual machine: apply, status, kill, save, restore, detach.
# Usage: loader_test.sh HOOKLINE MODULE PLUGIN-FOLDER
set -uo pipefail

hookline=("$1" --plugin-dir "$3" --allow-untrusted)
module=$2
pf=${HOOKLINE_VM_PFS%% *}
read -ra vfs <<<"$HOOKLINE_VM_VFS"
work=$(mktemp -d /run/loader-test.XXXXXX)
output=$work/output
failures=0

# NAME COMMAND...: passes when the command succeeds; else its output is shown.
check() {
	local name=$1
	shift
	if "$@" >"$output" 2>&1; then
		echo "ok      $name"
	else
		echo "FAILED  $name"
		sed 's/^/        /' "$output"
		failures=$((failures + 1))
	fi
}

status_is() {
	local want=$1 got=0
	shift
	"$@" || got=$?
	((got == want)) || { echo "status $got instead of $want" && false; }
}

says() { # TEXT COMMAND...: its output, on stdout or stderr, holds the text, whatever its status
	local text=$1
	shift
	"$@" >"$work/said" 2>&1 || true
	grep -qF -- "$text" "$work/said" || { cat "$work/said" && false; }
}

wait_for() { # COMMAND...: within ten seconds
	local tries=100
	until "$@" >/dev/null 2>&1; do
		((tries--)) || { "$@" || true; return 1; }
		sleep 0.1
	done
}

# Everything apply may change, and what it must not: the PF's network interface would get a new index with its driver.
snapshot() {
	local function attribute folder
	for function in "$pf" "${vfs[@]}"; do
		folder=/sys/bus/pci/devices/$function
		[[ -d $folder ]] || continue
		echo "$function driver $(readlink "$folder/driver")"
		for attribute in driver_override sriov_numvfs sriov_drivers_autoprobe; do
			[[ ! -e $folder/$attribute ]] || echo "$function $attribute $(cat "$folder/$attribute")"
		done
	done
	cat "/sys/bus/pci/devices/$pf/net/"*/ifindex
}
unchanged() { diff "$work/before" <(snapshot); }

status() { # DEVICE EXPRESSION: a Python expression over the device's status `d`
	"${hookline[@]}" status --json |
		/usr/bin/python3 -c "import json, sys; d = [d for d in json.load(sys.stdin)['devices'] if d['address'] == '$1'][0]; print(($2))"
}
status_says() { # DEVICE EXPRESSION VALUE
	local got
	got=$(status "$1" "$2")
	[[ $got == "$3" ]] || { echo "$2 is $got, not $3" && false; }
}
worker_of() { status "$1" "d['worker']['pid']"; }

# ---- a host before Hookline: one VF has its own driver, one has none and an override

modprobe igbvf
# With sriov_drivers_autoprobe off the kernel lets a VF bind only to what is named so.
echo igbvf >"/sys/bus/pci/devices/${vfs[0]}/driver_override"
echo "${vfs[0]}" >/sys/bus/pci/drivers/igbvf/bind
echo >"/sys/bus/pci/devices/${vfs[0]}/driver_override"
echo igbvf >"/sys/bus/pci/devices/${vfs[1]}/driver_override"
# modprobe finds the module as if it were installed.
mkdir -p "$work/modules/lib/modules/$(uname -r)"
cp "$module" "$work/modules/lib/modules/$(uname -r)/"
depmod -b "$work/modules" "$(uname -r)" 2>/dev/null
mount --bind "$work/modules/lib/modules/$(uname -r)" "/lib/modules/$(uname -r)"
snapshot >"$work/before"

two_vfs=$work/two-vfs.yaml
cat >"$two_vfs" <<YAML
devices:
  - match: { pf: "$pf", vf: 0-1 }
    chain: [ { plugin: loader-toy } ]
YAML
cat >"$work/wrong.yaml" <<YAML
devices:
  - match: { address: "${vfs[0]}" }
    chain: [ { plugin: loader-toy } ]
  - match: { address: "${vfs[1]}", id: "8086:10c9" }
    chain: [ { plugin: loader-toy } ]
YAML
cat >"$work/pf.yaml" <<YAML
devices:
  - match: { address: "$pf" }
    whole_function: true
    chain: [ { plugin: loader-toy } ]
YAML

check LD2_dry_run_tells says "bind ${vfs[0]} to vfio-pci-hooks" "${hookline[@]}" apply --dry-run "$two_vfs"
check LD2_dry_run_touches_nothing unchanged
check CH6_not_loaded_by_looking test ! -e /sys/module/vfio_pci_hooks
check LD2_wrong_device_is_refused says "is 8086:10ca, not 8086:10c9" "${hookline[@]}" apply "$work/wrong.yaml"
check LD2_refused_before_anything_is_touched unchanged
check LD3_pf_with_vfs_is_refused says "its driver serves them" "${hookline[@]}" apply "$work/pf.yaml"
check LD3_refused_before_anything_is_touched unchanged

# ---- set up

check LD2_apply "${hookline[@]}" apply "$two_vfs"
if ((failures)); then
	echo "nothing of what follows can pass"
	tail -n 20 /run/hookline/*.log
	exit 1
fi
check CH6_module_loaded_on_demand test -e /sys/module/vfio_pci_hooks
for vf in "${vfs[@]}"; do
	check "LD2_bound_$vf" status_says "$vf" "d['driver'], d['bound'], d['worker']['ready']" "('vfio-pci-hooks', True, True)"
	check "LD2_can_migrate_$vf" status_says "$vf" "d['migration']['possible']" True
done
check CH4_pf_driver_untouched diff <(grep "^$pf\|^[0-9]*$" "$work/before") <(snapshot | grep "^$pf\|^[0-9]*$")
worker=$(worker_of "${vfs[0]}")
check LD2_apply_twice_has_nothing_to_do says "${vfs[0]} (VF 0 of $pf): nothing to do" "${hookline[@]}" apply "$two_vfs"
check LD2_apply_twice_leaves_the_worker status_says "${vfs[0]}" "d['worker']['pid']" "$worker"

is_unprivileged() {
	! grep -E '^(Uid|Gid):.*\b0\b' "/proc/$worker/status" &&
		! grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):.*[1-9a-f]' "/proc/$worker/status" &&
		grep -P '^NoNewPrivs:\t1' "/proc/$worker/status" && grep -P '^Seccomp:\t2' "/proc/$worker/status"
}
check RL3_worker_is_unprivileged is_unprivileged
has_no_control() { ! readlink "/proc/$worker/fd/"* | grep -F /dev/vfio-pci-hooks; }
check RL3_worker_cannot_define has_no_control

# ---- asked before anything moves: by sysfs, and the worker, whose rights are gone, answers

folder() { echo "/sys/bus/pci/devices/$1"; }
version() { cat "$(folder "$1")/migration_version"; }
take() { version "${vfs[0]}" >"$(folder "${vfs[1]}")/migration_version"; }
nonsense() { echo nonsense >"$(folder "${vfs[1]}")/migration_version"; }
check MV1_worker_tells_the_version says org.hookline.test/loader-toy version "${vfs[0]}"
check MV3_the_other_one_takes_it take
check MV1_nonsense_is_refused status_is 1 nonsense
check MV1_reason_is_in_the_kernel_log says "migration_version refused: " dmesg
check MV1_reason_is_in_the_workers_log grep -q "migration_version: refused: " /run/hookline/*.log
check MM1_model grep -qx org.hookline.test/loader-toy "$(folder "${vfs[0]}")/migration/model"
check MV4_state_begins_with_what_is_read says "$(version "${vfs[0]}")" "${hookline[@]}" save "${vfs[0]}"

# ---- parameters: the destination is given the source's

value() { cat "$(folder "$1")/migration/$2/value"; }
put() { echo "$3" >"$(folder "$1")/migration/$2/value"; }
has() { # DEVICE PACE QUEUES OFFLOAD
	local got
	got="$(value "$1" pace) $(value "$1" queues) $(value "$1" offload)"
	[[ $got == "$2 $3 $4" ]] || { echo "pace, queues, offload are $got" && false; }
}
check MM3_a_new_device_has_init_values has "${vfs[0]}" normal 1 off
check MM2_a_value_is_written put "${vfs[0]}" queues 3
check MM2_what_is_not_allowed_is_refused status_is 1 put "${vfs[0]}" queues 5
check MM5_the_other_one_can_receive "${hookline[@]}" compat check --source "${vfs[0]}" --dest "${vfs[1]}"
check MM5_prepare "${hookline[@]}" compat prepare --source "${vfs[0]}" --dest "${vfs[1]}"
check MM5_prepared_as_the_source has "${vfs[1]}" normal 3 off
check MM5_prepare_twice "${hookline[@]}" compat prepare --source "${vfs[0]}" --dest "${vfs[1]}"
check MM5_prepared_is_what_it_says_of_itself diff <(version "${vfs[0]}") <(version "${vfs[1]}")
check MM3_apply_leaves_what_was_written says "nothing to do" "${hookline[@]}" apply "$two_vfs"
check MM3_and_it_is_still_there has "${vfs[0]}" normal 3 off
check MM2_the_other_is_written put "${vfs[0]}" offload on

# ---- state from one to the other

check LD2_save "${hookline[@]}" save "${vfs[0]}" -o "$work/state"
check LD2_state_begins_as_ours grep -qa org.hookline.test/loader-toy "$work/state"
pipe() { "${hookline[@]}" save "${vfs[0]}" | "${hookline[@]}" restore "${vfs[1]}"; }
check LD2_save_into_restore pipe
check MM5_a_state_brings_the_sources_values has "${vfs[1]}" normal 3 on
truncated() { head -c "$(($(stat -c %s "$work/state") - 1))" "$work/state" | "${hookline[@]}" restore "${vfs[1]}"; }
check RL2_truncated_state_fails status_is 1 truncated
check RL2_truncated_state_is_refused_as_such says "not restored: cannot go to STOP" truncated
check RL4_binary_never_goes_to_a_terminal says "not writing" script -qec "$(printf '%q ' "${hookline[@]}" save "${vfs[0]}")" /dev/null

# ---- what dies

has_new_worker() { # DEVICE FORMER
	status_says "$1" "d['worker']['ready'] and d['worker']['pid'] not in (None, $2)" True
}
kill -9 "$worker"
check RL5_killed_worker_is_replaced wait_for has_new_worker "${vfs[0]}" "$worker"
check RL5_replacement_is_told says "$worker ended: signal 9" "${hookline[@]}" status "${vfs[0]}"
check RL5_replacement_tells_the_version wait_for version "${vfs[0]}"
check RL5_replacement_serves "${hookline[@]}" save "${vfs[0]}" -o "$work/state"

supervisor=$(status "${vfs[0]}" "d['supervisor']['pid']")
worker=$(worker_of "${vfs[0]}")
kill -9 "$supervisor"
check RL5_worker_outlives_its_supervisor wait_for status_says "${vfs[0]}" "d['supervisor']['pid'], d['worker']['pid']" "(None, $worker)"
check RL5_worker_without_supervisor_serves "${hookline[@]}" save "${vfs[0]}" -o "$work/state"
check RL5_apply_gives_it_a_successor says "start serving ${vfs[0]}" "${hookline[@]}" apply "$two_vfs"
check RL5_successor_leaves_the_worker status_says "${vfs[0]}" "d['supervisor']['pid'] not in (None, $supervisor), d['worker']['pid']" "(True, $worker)"
kill -9 "$worker"
check RL5_successor_replaces wait_for has_new_worker "${vfs[0]}" "$worker"

# ---- a device in use

"${hookline[@]}" restore "${vfs[1]}" -i "$work/state" --hold 2>"$work/hold.log" &
holder=$!
check LD2_held_open wait_for grep -q "held open" "$work/hold.log"
check LD2_status_shows_it status_says "${vfs[1]}" "d['open'], d['served'], d['migration_state']" "(True, True, 'RUNNING')"
# Nothing differs but what may change while the device is open: no EBUSY would protect the guest.
check MM2_the_source_is_another_now put "${vfs[0]}" pace slow
prepare() { "${hookline[@]}" compat prepare --source "${vfs[0]}" --dest "${vfs[1]}"; }
check MM6_open_device_is_not_prepared says "a VMM has the device open" prepare
check MM6_open_device_keeps_its_values has "${vfs[1]}" normal 3 on
check MM6_open_device_is_no_candidate status_is 1 "${hookline[@]}" compat select --source "${vfs[0]}" "${vfs[1]}"
check LD2_device_in_use_is_not_detached says "in use by hookline (process $holder)" "${hookline[@]}" detach "${vfs[1]}"
check LD2_and_stays_bound status_says "${vfs[1]}" "d['bound'], d['open']" "(True, True)"
check LD2_apply_leaves_it_in_use says "nothing to do" "${hookline[@]}" apply "$two_vfs"
sed "s/^    chain/    busy_poll: 50us\n    chain/" "$two_vfs" >"$work/watching.yaml"
check LD2_apply_leaves_the_worker_in_use says "${vfs[1]} is in use by" "${hookline[@]}" apply "$work/watching.yaml"
worker=$(worker_of "${vfs[1]}")
kill -9 "$worker"
check RL5_open_device_is_served_again wait_for status_says "${vfs[1]}" "d['served'] and d['worker']['pid'] != $worker" True
check RL5_and_stays_open kill -0 "$holder"
kill "$holder"
wait "$holder"

# The last file takes nothing, so that the two before it are written, and written back.
value "${vfs[1]}" offload >"$work/offload"
last=$(folder "${vfs[1]}")/migration/offload/value
check MM2_and_more_of_the_source put "${vfs[0]}" queues 2
mount --bind "$work/offload" "$last"
mount -o remount,bind,ro "$last"
check MM5_failing_prepare_says_where says 'parameter "offload" cannot become on' prepare
check MM5_failing_prepare_is_taken_back grep -q "the device is as it was" "$work/said"
check MM5_failed_prepare_changes_nothing has "${vfs[1]}" normal 3 on
umount "$last"
check MM5_then_it_is_prepared prepare
check MM5_as_the_source_is_now has "${vfs[1]}" slow 2 on

# ---- what only a worker reads takes another worker, and no other binding

binding() { stat -c %i "$(folder "${vfs[0]}")/driver"; }
bound=$(binding)
worker=$(worker_of "${vfs[0]}")
check LD2_busy_poll_apply "${hookline[@]}" apply "$work/watching.yaml"
check LD2_busy_poll_has_another_worker has_new_worker "${vfs[0]}" "$worker"
check LD2_busy_poll_is_shown status_says "${vfs[0]}" "d['busy_poll_us']" 50
check LD2_busy_poll_stays_bound test "$(binding)" = "$bound"
check LD2_busy_poll_serves "${hookline[@]}" save "${vfs[0]}" -o "$work/state"
check LD2_busy_poll_twice_has_nothing_to_do says "nothing to do" "${hookline[@]}" apply "$work/watching.yaml"
check LD2_busy_poll_is_taken_back "${hookline[@]}" apply "$two_vfs"
check LD2_busy_poll_is_shown_no_more status_says "${vfs[0]}" "d['busy_poll_us']" 0

# ---- given back

check LD2_detach "${hookline[@]}" detach "$two_vfs"
check LD2_everything_is_as_it_was_found unchanged
check LD2_nothing_is_left_in_memory test "$(find /run/hookline -type f)" = /run/hookline/lock
check LD2_detach_twice_has_nothing_to_do says "nothing to do" "${hookline[@]}" detach "${vfs[0]}"

# ---- VFs that are created

echo "${vfs[0]}" >"/sys/bus/pci/drivers/igbvf/unbind"
echo 0 >"/sys/bus/pci/devices/$pf/sriov_numvfs"
echo 1 >"/sys/bus/pci/devices/$pf/sriov_drivers_autoprobe"
snapshot >"$work/before"
sed "s/^    chain/    create_vfs: 3\n    chain/" "$two_vfs" >"$work/create.yaml"
check LD2_creates_vfs "${hookline[@]}" apply "$work/create.yaml"
check LD2_as_many_as_wanted test "$(cat "/sys/bus/pci/devices/$pf/sriov_numvfs")" = 3
check LD2_autoprobe_is_restored test "$(cat "/sys/bus/pci/devices/$pf/sriov_drivers_autoprobe")" = 1
check LD2_no_driver_took_the_third test ! -e "/sys/bus/pci/devices/$pf/virtfn2/driver"
check LD2_detach_all "${hookline[@]}" detach --all
check LD2_vfs_are_gone_again unchanged
check RL1_module_can_go rmmod vfio_pci_hooks

if ((failures)); then
	echo "$failures failed"
	tail -n 20 /run/hookline/*.log "$work"/*.log
	exit 1
fi
