# SPDX-License-Identifier: Apache-2.0
"""Hookline on the host of the inner guest, as an administrator uses it, and what the kernel module's trace tells.

    host = Host(sources, build)
    host.load_module(); host.apply(f"{sources}/configs/demo.yaml")

Errors: HostError with the command's output.
"""
import glob
import json
import os
import re
import subprocess

TRACE = "/sys/kernel/tracing"
PF_ADDRESS = "10.0.2.15"
STATES = ["ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"]


class HostError(Exception):
    """A command failed."""


def run(*command, limit=120, check=True):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=limit, check=False)
    if check and done.returncode != 0:
        raise HostError(f"{' '.join(command)}: status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class Host:
    def __init__(self, sources, build):
        self.build = build
        self.module = os.path.join(os.environ.get("HOOKLINE_MODULES", f"{build}/vfio-pci-hooks"), "vfio-pci-hooks.ko")
        self.program = f"{build}/userspace-loader/hookline"
        self.sources = sources
        self.pf = os.environ["HOOKLINE_VM_PFS"].split()[0]
        self.vfs = os.environ["HOOKLINE_VM_VFS"].split()

    @property
    def netdev(self):
        return os.path.basename(glob.glob(f"/sys/bus/pci/devices/{self.pf}/net/*")[0])

    def raise_pf(self):
        """After its driver was bound again: as the machine had set it up."""
        run("ip", "link", "set", self.netdev, "up")
        run("ip", "address", "add", f"{PF_ADDRESS}/24", "dev", self.netdev)

    def load_module(self):
        run("insmod", self.module)

    def load_handler(self, name):
        """A module beside it that has in-kernel handlers."""
        run("insmod", os.path.join(os.path.dirname(self.module), "handlers", f"{name}.ko"))

    @staticmethod
    def plugin_options(plugin_dirs):
        words = [word for folder in plugin_dirs for word in ("--plugin-dir", folder)]
        return words + (["--allow-untrusted"] if plugin_dirs else [])

    def apply(self, file, plugin_dirs=()):
        return run(self.program, *self.plugin_options(plugin_dirs), "apply", file)

    def detach(self, device):
        return run(self.program, "detach", device)

    def status(self, device):
        devices = json.loads(run(self.program, "status", device, "--json"))["devices"]
        return devices[0]

    def status_text(self, device):
        return run(self.program, "status", device)

    def log(self, device):
        """What Hookline's supervisor and worker have said of the device."""
        try:
            with open(f"/run/hookline/{device}.log", encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def compat_export(self, device):
        return self.compat("export", device)[1]

    def compat_check(self, *arguments, plugin_dirs=(), text=""):
        """The verdict, whose "compatible" and whose exit status say the same: yes or no. text: standard input."""
        status, out = self.compat("check", *arguments, "--json", plugin_dirs=plugin_dirs, text=text, statuses=(0, 1))
        verdict = json.loads(out)
        if verdict["compatible"] is not (status == 0):
            raise HostError(f"compat check: status {status}: {out}")
        return verdict

    def compat(self, *arguments, plugin_dirs=(), text="", statuses=(0,)):
        command = [self.program, *self.plugin_options(plugin_dirs), "compat", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode not in statuses:
            raise HostError(f"{' '.join(command)}: status {done.returncode}: {done.stdout.strip()} {done.stderr.strip()}")
        return done.returncode, done.stdout

    def migration_version(self, device):
        """By one read()."""
        file = os.open(f"/sys/bus/pci/devices/{device}/migration_version", os.O_RDONLY)
        try:
            return os.read(file, 8192)
        finally:
            os.close(file)

    def offer(self, device, version):
        """Another device's migration_version; OSError: refused."""
        file = os.open(f"/sys/bus/pci/devices/{device}/migration_version", os.O_WRONLY)
        try:
            os.write(file, version)
        finally:
            os.close(file)

    def set_parameter(self, device, name, value):
        write(f"/sys/bus/pci/devices/{device}/migration/{name}/value", f"{value}\n")

    def second_address(self, address):
        run("ip", "address", "add", f"{address}/24", "dev", self.netdev)

    def vlan(self, number, *addresses):
        """The PF's interface in a VLAN."""
        name = f"{self.netdev}.{number}"
        run("modprobe", "8021q")
        run("ip", "link", "add", "link", self.netdev, "name", name, "type", "vlan", "id", str(number))
        for address in addresses:
            run("ip", "address", "add", f"{address}/24", "dev", name)
        run("ip", "link", "set", name, "up")


class Trace:
    """The module's tracepoints while a migration runs.

        with Trace() as trace: migrate()
        trace.arcs("0000:01:10.0")      # [("RUNNING", "PRE_COPY", answer, microseconds)]
    """
    ARC = re.compile(r" ([0-9.]+): state: (\S+) (\d) -> (\d): (-?\d+), (\d+) us")
    DATA = re.compile(r" ([0-9.]+): data: (\S+) (save|load) (-?\d+), (\d+) us")

    def __enter__(self):
        write(f"{TRACE}/trace", "")
        for event in ("state", "data"):
            write(f"{TRACE}/events/vfio_pci_hooks/{event}/enable", "1")
        return self

    def __exit__(self, *_):
        for event in ("state", "data"):
            write(f"{TRACE}/events/vfio_pci_hooks/{event}/enable", "0")
        with open(f"{TRACE}/trace", encoding="utf-8", errors="replace") as file:
            self.text = file.read()

    def arcs(self, device):
        return [(STATES[int(m[3])], STATES[int(m[4])], int(m[5]), int(m[6])) for m in self.ARC.finditer(self.text) if m[2] == device]

    def walk(self, devices):
        """The states that several devices reached, in the order of time: (device, state)."""
        return [(m[2], STATES[int(m[4])]) for m in self.ARC.finditer(self.text) if m[2] in devices]

    def data(self, device):
        """Reads or writes of the device state: (save or load, bytes or -errno, microseconds)."""
        return [(m[3], int(m[4]), int(m[5])) for m in self.DATA.finditer(self.text) if m[2] == device]

    def stopped(self, source, destination):
        """What the device takes of the guest's downtime, in milliseconds by part: everything that Hookline did between
        the source's stop and the destination's start."""
        def arcs(device, wanted):
            return sum(us for a, b, _, us in self.arcs(device) if (a, b) in wanted) / 1000

        lines = [line for line in self.text.splitlines()]
        stop = next((i for i, line in enumerate(lines) if (m := self.ARC.search(line)) and m[2] == source and m[4] == "7"), 0)
        moved = {"save": 0.0, "load": 0.0}
        for line in lines[stop:]:
            if (m := self.DATA.search(line)) and m[2] in (source, destination):
                moved[m[3]] += int(m[5]) / 1000
        return {
            "stop": arcs(source, {("PRE_COPY", "PRE_COPY_P2P"), ("PRE_COPY_P2P", "STOP_COPY")}),
            "save": moved["save"], "load": moved["load"],
            "start": arcs(destination, {("RESUMING", "STOP"), ("STOP", "RUNNING_P2P"), ("RUNNING_P2P", "RUNNING")})}


