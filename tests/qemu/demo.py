#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Inside the virtual machine: what ./demo --qemu shows. An unmodified QEMU migrates a guest with its passthrough NIC.

usage: demo.py --sources DIR --build DIR --kernel FILE --initrd FILE [--round-trips N] [--json FILE] [--live]
"""
import argparse
import json
import os
import platform
import sys
import time

from host import Host, HostError, run
from inner import GuestPanic, Image, QemuEnded
from qmp import QmpError, Timeout
from session import Broken, Session


class Progress:
    """One line that is written anew on a terminal, and a line for each change elsewhere."""

    def __init__(self, live):
        self.live, self.last, self.width = live, None, 0

    def __call__(self, text):
        if self.live:
            print("\r" + text.ljust(self.width), end="", flush=True)
            self.width = len(text)
        elif text.split(":")[0] != self.last:
            print(text, flush=True)
        self.last = text.split(":")[0]

    def done(self):
        if self.live and self.width:
            print("\r" + " " * self.width + "\r", end="", flush=True)
            self.width = 0


def megabytes(count):
    return f"{count / (1 << 20):.1f} MiB"


def step(sources, *command):
    print("+", " ".join(word.removeprefix(f"{sources}/") for word in command))
    print(run(*command), end="")


def row(*cells):
    print(f"{cells[0]:<36}" + "".join(f"{cell:>12}" for cell in cells[1:]))


def report(move, first, last):
    """One migration, in full."""
    info, device = move.result.info, move.device_ms
    row("", "ms", "bytes")
    phases = move.result.bytes_by_phase()
    row("migration, total", info["total-time"], sum(phases.values()))
    for name, count in phases.items():
        row(f"  {name}", "", count)
    row("guest stopped, by QMP", info["downtime"])
    row("  of that the device", f"{sum(device.values()):.1f}")
    for name, what in (("stop", "source: stop program"), ("save", "source: save"), ("load", "destination: load, apply"),
                       ("start", "destination: start program")):
        row(f"    {what}", f"{device[name]:.1f}")
    row("gap in the traffic, seen from outside", f"{move.gap_ms:.0f}")
    for name, value in move.gap_parts.items():
        row(f"  {name}", f"{value:.0f}")
    print()
    row("traffic of the guest, bytes", "before", "until now", "wrong")
    for name, key in (("TCP out and back", "out"), ("TCP in", "in")):
        row(f"  {name}", first["nics"][0][f"{key}_ok"], last["nics"][0][f"{key}_ok"], last["nics"][0][f"{key}_wrong"])
    row("  interrupts", first["nics"][0]["interrupts"], last["nics"][0]["interrupts"])
    print()


def as_json(move, source, destination):
    info = move.result.info
    return {"source": source, "destination": destination, "total_ms": info["total-time"], "downtime_ms": info["downtime"],
            "traffic_gap_ms": round(move.gap_ms, 1), "traffic_gap_parts_ms": {k: round(v, 1) for k, v in move.gap_parts.items()},
            "device_ms": {k: round(v, 3) for k, v in move.device_ms.items()}, "bytes": move.result.bytes_by_phase()}


class Demo:
    def __init__(self, options):
        self.options, self.progress = options, Progress(options.live)
        self.host = Host(options.sources, options.build)
        self.session = Session(self.host, Image(options.kernel, options.initrd), "/run/qemu")
        self.moves = []

    def prepare(self):
        sources = self.options.sources
        step(sources, "insmod", self.host.module)
        step(sources, self.host.program, "apply", f"{sources}/configs/demo.yaml")
        self.session.prepare_host()

    def boot(self):
        begin = time.monotonic()
        session = self.session
        session.qemu = session.start([self.host.vfs[0]])
        device = session.qemu.vfs[0].argument()
        print(f"\nQEMU {session.qemu.qmp('query-version')['package'] or session.qemu.qmp('query-version')['qemu']}: -device {device}")
        self.progress("the guest boots (no KVM: a minute)")
        session.wait_for_guest()
        session.wait_for_inbound()
        self.progress.done()
        print(f"the guest has traffic after {time.monotonic() - begin:.0f} s: TCP out to the gateway and back, TCP in from the PF's side")

    def move(self, number, moves):
        session, source = self.session, self.session.qemu.vfs[0].host
        target = next(vf for vf in self.host.vfs[:2] if vf != source)
        counter = f"{number}/{moves} " if moves > 1 else ""

        def progress(info):
            ram = info.get("ram")
            done = f": {megabytes(ram['transferred'])} sent, {megabytes(ram['remaining'])} left" if ram else ""
            self.progress(f"{counter}migrate {source} -> {target}, {info.get('status', 'begins')}{done}")

        first = session.guest.stat
        move = session.move([target], progress=progress)
        self.progress.done()
        self.moves.append(as_json(move, source, target))
        if moves == 1:
            print(f"\nMigrated from {source} to {target}\n")
            report(move, first, session.guest.stat)
        else:
            now, info = self.moves[-1], move.result.info
            if number == 1:
                print(f"\n{'':>9}{'source':>14}{'destination':>14}{'total ms':>10}{'downtime':>10}{'device':>8}{'gap':>8}{'sent':>12}")
            print(f"{number:>4}/{moves:<4}{source:>14}{target:>14}{info['total-time']:>10}{info['downtime']:>10}"
                  f"{sum(move.device_ms.values()):>8.1f}{move.gap_ms:>8.0f}{megabytes(sum(now['bytes'].values())):>12}", flush=True)

    def verdict(self):
        nic, driver = self.session.guest.stat["nics"][0], self.session.guest.stat["driver"]
        print(f"link changes: {nic['link_changes']} (both while it came up), messages of its driver: {driver}, "
              f"broken TCP connections: {nic['broken']}")
        print(f"driver of the PF: {os.path.basename(os.readlink(f'/sys/bus/pci/devices/{self.host.pf}/driver'))}, kernel: {platform.release()}")
        print(f"ok: {len(self.moves)} migration{'s' if len(self.moves) > 1 else ''} of a running guest with its NIC, no byte wrong: "
              f"{nic['out_ok']} out and back, {nic['in_ok']} in")

    def run(self):
        self.prepare()
        moves = 2 * self.options.round_trips or 1
        with self.session.traffic():
            self.boot()
            for number in range(1, moves + 1):
                self.move(number, moves)
            self.verdict()


def main():
    parser = argparse.ArgumentParser()
    for name in ("sources", "build", "kernel", "initrd"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--round-trips", type=int, default=0)
    parser.add_argument("--json")
    parser.add_argument("--live", action="store_true")
    options = parser.parse_args()
    demo, problems = Demo(options), []
    try:
        demo.run()
    except (Broken, GuestPanic, HostError, OSError, QemuEnded, QmpError, Timeout) as error:
        demo.progress.done()
        problems.append(f"{type(error).__name__}: {error}")
        print(f"FAILED  {problems[0]}")
        for vf in demo.host.vfs:
            print("\n".join(demo.host.log(vf).splitlines()[-5:]))
    finally:
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump({"ok": not problems, "kernel": platform.release(), "moves": demo.moves,
                           "guest": demo.session.guest.stat, "problems": problems}, file, indent=2)
                file.write("\n")
        demo.session.end()
    return 1 if problems else 0


sys.exit(main())
