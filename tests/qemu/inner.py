# SPDX-License-Identifier: Apache-2.0
"""The inner guest, and the QEMU processes that it runs in, one after the other.

    guest = Guest()
    source = Qemu("source", folder, image, [Vf("0000:01:10.0")], guest, nics)
    guest.wait(lambda g: g.stat and g.stat["nics"], 180, "traffic")

Errors: Timeout, QmpError, GuestPanic, QemuEnded with what that QEMU has said.
"""
import dataclasses
import json
import os
import subprocess
import threading
import time

from qmp import Qmp, connect, wait_for_news, wait_until

MEMORY = 128  # MiB
ROOT_PORT = "port0"


class QemuEnded(Exception):
    """A QEMU process ended when nobody had asked for it."""


class GuestPanic(Exception):
    """The guest's kernel gave up."""


@dataclasses.dataclass
class Image:
    kernel: str
    initrd: str


@dataclasses.dataclass
class Vf:
    """One -device vfio-pci. The place in the guest has to be the same on both sides."""
    host: str
    place: int = 4
    options: str = "enable-migration=on"
    iommufd: bool = False
    bus: str = ""  # ROOT_PORT: where devices are plugged in

    def argument(self):
        text = f"vfio-pci,id=vf{self.place},host={self.host},addr={self.place}"
        if self.bus:
            text += f",bus={self.bus}"
        if self.iommufd:
            text += ",iommufd=iommufd0"
        return text + (f",{self.options}" if self.options else "")

    def properties(self):
        """For device_add."""
        return dict(word.split("=", 1) for word in f"driver={self.argument()}".split(","))


@dataclasses.dataclass
class Nic:
    """An interface of the inner guest. echo: who answers on TCP port 7."""
    address: str
    mac: str
    echo: str

    def argument(self):
        return f"nic={self.address},{self.mac},{self.echo}"


class Guest:
    """What the inner guest says on its console, wherever it runs."""

    def __init__(self):
        self.lines = []   # (time, text)
        self.stats = []   # (time, what it says once a second)
        self.panic = ""   # what its kernel said
        self.changed = threading.Condition()

    def hear(self, line):
        with self.changed:
            moment = time.monotonic()
            if line.startswith("HL {"):
                try:
                    self.stats.append((moment, json.loads(line[3:])))
                except ValueError:  # a line that was cut
                    self.lines.append((moment, line))
            else:
                self.lines.append((moment, line))
                if "Kernel panic" in line:
                    self.panic = "\n".join(text for _, text in self.lines[-60:])
            self.changed.notify_all()

    @property
    def stat(self):
        return self.stats[-1][1] if self.stats else None

    def wait(self, condition, limit, what):
        """Until the condition of this guest holds; returns its value."""
        def check():
            if self.panic:
                raise GuestPanic(f"while waiting for: {what}\n{self.panic}")
        return wait_for_news(self.changed, lambda: condition(self), limit,
                             lambda: f"the guest: {what}; it last said: {self.tail()}", check)

    def tail(self, count=3):
        said = [text for _, text in self.lines[-count:]]
        return " | ".join(said + ([json.dumps(self.stat)] if self.stat else [])) or "nothing"

    def fresh(self, limit=30):
        """A statistics line that was made after this call began."""
        with self.changed:
            before = len(self.stats)
        return self.wait(lambda g: len(g.stats) > before + 1 and g.stat, limit, "a sign of life")

    def says(self, text, since=0.0):
        return [line for moment, line in self.lines if moment >= since and text in line]


class Qemu:
    """One QEMU process. incoming: it waits for a migration."""

    def __init__(self, name, folder, image, vfs, guest, nics, incoming=False, options=(), boot=True):
        self.name, self.folder, self.vfs = name, folder, list(vfs)
        self.log_file = os.path.join(folder, f"{name}.log")
        console, monitor = (os.path.join(folder, f"{name}.{end}") for end in ("console", "qmp"))
        for path in (console, monitor):
            if os.path.exists(path):
                os.unlink(path)
        # tsc, timers: an emulated guest of an emulated host measures its clocks wrongly.
        append = ["quiet console=ttyS0 nokaslr mitigations=off highres=off tsc=unstable no_timer_check lpj=5000000 panic=-1"]
        append += [nic.argument() for nic in nics]
        self.arguments = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
            "-machine", "q35,sata=off,smbus=off,usb=off,hpet=off,vmport=off", "-cpu", "qemu64", "-m", str(MEMORY),
            "-kernel", image.kernel, "-initrd", image.initrd, "-append", " ".join(append),
            "-chardev", f"socket,id=console,path={console},server=on,wait=off,logfile={folder}/{name}.console.log",
            "-serial", "chardev:console", "-qmp", f"unix:{monitor},server=on,wait=off", "-msg", "timestamp=on"]
        if any(vf.iommufd for vf in self.vfs):
            self.arguments += ["-object", "iommufd,id=iommufd0"]
        self.arguments += ["-device", f"pcie-root-port,id={ROOT_PORT},addr=8,chassis=1,slot=1"]
        for vf in self.vfs:
            self.arguments += ["-device", vf.argument()]
        if incoming:
            self.arguments += ["-incoming", "defer"]
        elif not boot:
            self.arguments += ["-S"]
        self.arguments += options
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(lambda: os.path.exists(monitor) or self._check_alive(), 90, f"start of QEMU {name}")
            self.qmp = Qmp(monitor)
            self._console = connect(console, 30)
        except Exception:
            try:  # it closes its sockets a moment before it has ended
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            self._check_alive()
            raise
        threading.Thread(target=self._listen, args=(guest,), daemon=True).start()

    def _check_alive(self):
        if self.process.poll() is not None:
            raise QemuEnded(f"QEMU {self.name} ended with status {self.process.returncode}: {self.log().strip()}")

    def _listen(self, guest):
        try:
            with self._console.makefile(errors="replace") as lines:
                for line in lines:
                    guest.hear(line.strip())
        except OSError:
            pass

    def tell_guest(self, command):
        self._console.sendall(command.encode() + b"\n")

    def log(self):
        """What this QEMU has said on its standard error."""
        with open(self.log_file, encoding="utf-8", errors="replace") as file:
            return file.read()

    def status(self):
        return self.qmp("query-status")["status"]

    def quit(self, limit=30):
        """Ends it as a management program does."""
        if self.process.poll() is None:
            try:
                self.qmp("quit")
            except Exception:  # it is on its way out, or hangs: then it is killed
                pass
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()
