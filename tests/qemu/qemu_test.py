#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Inside the virtual machine: scenarios with real QEMU processes, one after the other, on one boot and one inner guest.

usage: qemu_test.py --sources DIR --build DIR --kernel FILE --initrd FILE [--only TEXT...] [--faults] [--round-trips N] [--iommufd]
                    [--forgetful]

Exit status: 0 everything was as promised, 1 otherwise.
"""
import argparse
import functools
import os
import re
import sys
import time
import traceback

from faults import Faults
from host import Host, run, write
from inner import Image
from scenarios import Scenarios
from session import Session

# On a guest with traffic in both directions, in this order. What leaves it with another number of devices, or with what was
# not seen, comes last.
ORDER = [
    "MV4_LD4_CH5_live_guest_under_traffic",
    "CH5_blocked_reasons_say_why",
    "LD4_mailbox_in_use_while_migrating",
    "LD4_idle_guest",
    "LD4_source_paused",
    "LD4_multifd_with_device_state",
    "RL2_cancelled_in_pre_copy",
    "RL2_cancelled_in_the_devices_stop_copy",
    "RL5_source_worker_killed_in_stop_copy",
    "MV4_RL2_destination_of_another_model",
    "MV4_RL2_destination_with_another_plugin",
    "MV4_RL2_destination_with_another_version",
    "MV4_RL2_destination_with_the_release_before",
    "MV4_MV5_release_before_and_back",
    "MV4_RL2_destination_with_one_plugin_more",
    "RL2_destination_that_refuses_the_end_of_the_state",
    "MV4_RL2_destination_with_a_chain_that_only_observes",
    "RL2_CH3_destination_with_no_chain",
    "RL2_destination_without_multifd",
    "RL2_first_write_fails_without_switchover_ack",
    "RL2_last_write_fails_without_return_path",
    "MP1_round_trips_under_traffic_in_both_directions",
    "MP5_no_page_that_the_device_wrote_is_lost",
    "LD4_RL2_two_vfs_one_of_them_hot_plugged",
    "RL5_destination_worker_killed_before_the_start",
]
PAGE = "vfio-pci-hooks/docs/fault-matrix.md"
TRACKING = ["MP5_default_options_converge_under_traffic"]
FORGETFUL = ["MP5_a_module_that_does_not_report_them_is_noticed"]
# On the same guest, whose peers' streams end with its reset.
LAST = ["RL5_guest_rebooted_just_before"]


class Runner:
    def __init__(self, options):
        self.host = Host(options.sources, options.build)
        self.host.load_module()
        os.makedirs("/run/qemu", exist_ok=True)
        with open(f"{options.sources}/configs/demo.yaml", encoding="utf-8") as file:
            config = re.sub(r"vf: 0-1", f"vf: 0-{len(self.host.vfs) - 1}", file.read())
        if options.dirty_tracking:
            self.host.load_handler("vfio_pci_hooks_82576")
            config = config.replace("- plugin: nic-82576\n", "- plugin: nic-82576\n        dirty_tracking: true\n")
        if options.faults:  # where nobody answers, each access waits as long
            config = config.replace("access: 5s", "access: 300ms")
        write("/run/qemu/all.yaml", config)
        self.host.apply("/run/qemu/all.yaml")
        more = {"iommufd": True, "options": ""} if options.iommufd else {"options": ""} if options.dirty_tracking else {}
        self.session = Session(self.host, Image(options.kernel, options.initrd), "/run/qemu", **more)
        self.session.prepare_host()
        self.scenarios = Scenarios(self.session, "/run/qemu/all.yaml", options.round_trips)
        self.faults = Faults(self.session, self.scenarios, f"{options.sources}/{PAGE}") if options.faults else None
        self.only, self.forgetful, self.dirty_tracking = options.only, options.forgetful, options.dirty_tracking
        self.failed = []

    def wanted(self, names):
        return [name for name in names if not self.only or any(text in name for text in self.only)]

    def tests(self, order, cells):
        """(name, function) of each that is wanted."""
        named = {name: getattr(self.scenarios, name) for name in order}
        if self.forgetful:
            named = {name: getattr(self.scenarios, name) for name in FORGETFUL if order is ORDER}
        if self.dirty_tracking and order is ORDER:
            named.update({name: getattr(self.scenarios, name) for name in TRACKING})
        if self.faults:
            named = {f"RL5_{event}_in_{state}": functools.partial(self.faults.show, event, state) for event, state in cells}
        return [(name, named[name]) for name in self.wanted(named)]

    def run(self):
        with self.session.traffic():
            begin = time.monotonic()
            self.session.boot([self.host.vfs[0]])
            self.session.wait_for_inbound()
            print(f"the inner guest has traffic after {time.monotonic() - begin:.0f} s")
            for name, test in self.tests(ORDER, Faults.CELLS):
                self.one(name, test)
        with self.session.traffic(inbound=False):
            for name, test in self.tests(LAST, {}):
                self.one(name, test)

    def one(self, name, test):
        if not self.session.qemu:
            self.failed.append(name)
            print(f"FAILED  {name}: there is no guest any more")
            return
        begin = time.monotonic()
        try:
            test()
        except Exception as error:
            self.failed.append(name)
            print(f"FAILED  {name}: {type(error).__name__}: {error}")
            self.explain()
            return
        print(f"ok      {name} ({time.monotonic() - begin:.0f} s)")

    def explain(self):
        traceback.print_exc()
        print(f"the guest last said: {self.session.guest.tail(12)}")
        print(f"streams into it: {[(stream.peer, stream.sent, stream.problems) for stream in self.session.streams]}")
        print(run("bash", "-c", "grep eth0 /proc/interrupts; ss -tinm; ip neigh; ip -s link; ps -eo pid,stat,psr,pcpu,comm --sort=-pcpu | head -n 12", check=False))
        for vf in self.host.vfs:
            print("\n".join(self.host.log(vf).splitlines()[-8:]))
        print(run("bash", "-c", "for f in $(ls -t /run/qemu/*.log | head -n 6); do echo \"== $f\"; tail -n 6 $f; done; dmesg | tail -n 15",
                  check=False))


def main():
    parser = argparse.ArgumentParser()
    for name in ("sources", "build", "kernel", "initrd"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--faults", action="store_true", help="cells of the fault matrix instead of the scenarios")
    parser.add_argument("--round-trips", type=int, default=2)
    parser.add_argument("--iommufd", action="store_true")
    parser.add_argument("--dirty-tracking", action="store_true", help="the NIC's option that says which pages it wrote, and QEMU's defaults")
    parser.add_argument("--forgetful", action="store_true", help="the module is that of build-forgetful")
    runner = Runner(parser.parse_args())
    begin = time.monotonic()
    try:
        runner.run()
    except Exception as error:
        runner.failed.append("traffic of the inner guest")
        print(f"FAILED  {type(error).__name__}: {error}")
        runner.explain()
    finally:
        runner.session.end()
    print(f"took {time.monotonic() - begin:.0f} s; failed: {', '.join(runner.failed) or 'nothing'}")
    return 1 if runner.failed else 0


sys.exit(main())
