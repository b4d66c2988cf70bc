# SPDX-License-Identifier: Apache-2.0
"""A guest under traffic that goes from VF to VF, and what may be relied on at each step.

    session = Session(host, image, "/run/qemu")
    with session.traffic():
        session.boot([host.vfs[0]])
        move = session.move([host.vfs[1]])

Errors: Broken with what is not as promised; Timeout, QmpError, QemuEnded.
"""
import contextlib
import dataclasses
import os
import time

from host import PF_ADDRESS, Trace
from inner import Guest, Nic, Qemu, Vf
from migration import Migration
from qmp import wait_until
from traffic import Echo, Inbound, Multicast, Probe

BOOT = 600     # seconds until the inner guest has traffic, on a busy host
SETTLE = 120   # until traffic goes on behind a stop: everything is translated anew
NICS = [Nic("10.0.2.20", "52:54:00:aa:00:01", "10.0.2.100"), Nic("10.0.4.20", "52:54:00:aa:00:02", "10.0.4.15")]
OWN = "10.0.4.15"     # the PF's address in the second interface's network
VLAN, VLAN_OWN, VLAN_GUEST = 100, ["10.9.2.15", "10.9.4.15"], ["10.9.2.20", "10.9.4.20"]


class Broken(Exception):
    """Something is not as promised."""


def demand(condition, text):
    if not condition:
        raise Broken(text)


@dataclasses.dataclass
class Move:
    """What one migration did."""
    result: object
    gap_ms: float
    gap_parts: dict       # milliseconds from the last answer to the stop, until the guest runs again, until the next answer
    device_ms: dict       # the device's part of the downtime, by what was done
    trace: Trace


class Session:
    """plugged: interfaces that the guest has from the beginning, of those that it knows (NICS)."""

    def __init__(self, host, image, folder, plugged=1, iommufd=False, options="enable-migration=on"):
        self.host, self.image, self.folder = host, image, folder
        self.plugged, self.iommufd, self.options = plugged, iommufd, options
        self.guest = Guest()
        self.qemu = None
        self.count = 0
        self.streams, self.probe, self.multicast = [], None, None
        os.makedirs(folder, exist_ok=True)

    # ---- traffic

    def prepare_host(self):
        """Once per machine: what the guest's peers need on the PF."""
        self.host.second_address(OWN)
        self.host.vlan(VLAN, *VLAN_OWN)

    @contextlib.contextmanager
    def traffic(self, inbound=True):
        """Peers of the guest. The guest's own streams run as soon as it has booted."""
        with contextlib.ExitStack() as self.peers:
            self.peers.enter_context(Echo(OWN))
            self.probe = self.peers.enter_context(Probe(NICS[0].address))
            self.multicast = self.peers.enter_context(Multicast(PF_ADDRESS))
            self.streams = [self.peers.enter_context(Inbound(guest)) for guest in VLAN_GUEST[:self.plugged]] if inbound else []
            try:
                yield self
            finally:
                self.streams = []

    def second_interface(self):
        """The guest has been given its second one."""
        self.plugged = 2
        self.wait_for_guest()
        self.streams.append(self.peers.enter_context(Inbound(VLAN_GUEST[1])))
        self.wait_for_inbound()

    # ---- life of the guest

    def start(self, addresses, incoming=False, vfs=None, options=()):
        """A QEMU with those VFs in the places where the guest has them now."""
        self.count += 1
        name = f"{self.count}-{'destination' if incoming else 'source'}"
        if vfs is None and self.qemu:
            vfs = [dataclasses.replace(vf, host=host) for vf, host in zip(self.qemu.vfs, addresses)]
        elif vfs is None:
            vfs = [Vf(host, 4 + i, self.options, self.iommufd) for i, host in enumerate(addresses)]
        return Qemu(name, self.folder, self.image, vfs, self.guest, NICS, incoming=incoming, options=options)

    def boot(self, addresses):
        moment = time.monotonic()
        self.qemu = self.start(addresses)
        self.wait_for_guest(since=moment)

    def wait_for_reboot(self, since):
        """Until a guest that was reset has traffic again; the streams into it are begun anew."""
        old, self.streams = self.streams, []
        for stream in old:
            stream.__exit__()
        # What it had said before may still be on its way.
        self.wait_for_guest(since=since + 2)
        if old:
            self.streams = [self.peers.enter_context(Inbound(stream.peer)) for stream in old]
            self.wait_for_inbound()

    def wait_for_guest(self, since=0, limit=BOOT):
        """Until each interface of a guest that was started now carries traffic to the outside."""
        def ready(guest):
            fresh = [s for t, s in guest.stats if t > since]
            return fresh and len(fresh[-1]["nics"]) == self.plugged and all(n["out_ok"] > 0 for n in fresh[-1]["nics"])
        self.guest.wait(ready, limit, "boot and first traffic")

    def wait_for_inbound(self):
        """Until the streams into the guest and the datagrams run, too."""
        def ready(guest):
            return all(n["in_ok"] > 0 for n in guest.stat["nics"]) and guest.stat["nics"][0]["multicasts"] > 0
        self.guest.wait(ready, SETTLE, "traffic into the guest")

    def demand_traffic(self, before, why, least=8192):
        """Traffic in both directions goes on behind the state `before`, with not one byte wrong, and the driver has noticed
        nothing."""
        def went_on(guest):
            return all(now["out_ok"] >= old["out_ok"] + least and (not self.streams or now["in_ok"] >= old["in_ok"] + least)
                       and now["interrupts"] > old["interrupts"]
                       for now, old in zip(guest.stat["nics"], before["nics"])) and guest.stat
        after = self.guest.wait(went_on, SETTLE, f"traffic goes on {why}")
        self.demand_unharmed(before, after, why)
        return after

    def demand_unharmed(self, before, after, why):
        demand(after["driver"] == before["driver"], f"{why}: the guest's driver said: {self.guest.says('HL kernel')[-3:]}")
        for now, old in zip(after["nics"], before["nics"]):
            for what in ("out_wrong", "in_wrong"):
                demand(now[what] == 0, f"{why}: {now[what]} bytes of {now['name']} were wrong ({what})")
            demand(now["broken"] == old["broken"], f"{why}: a TCP connection of {now['name']} broke")
            demand(now["link_changes"] == old["link_changes"], f"{why}: {now['name']} lost its link")
        for stream in self.streams:
            demand(not stream.problems, f"{why}: {stream.problems}")
        if self.probe:
            demand(self.probe.wrong == 0 and self.probe.twice == 0,
                   f"{why}: {self.probe.wrong} datagrams came back wrong, {self.probe.twice} twice")

    # ---- migrations

    def migration(self, destination, **more):
        return Migration(self.qemu, destination, os.path.join(self.folder, "migration"), **more)

    def move(self, addresses, progress=None, destination=None, capabilities=None, parameters=None, traffic=True,
             paused=False, booting=False):
        """Migrates the guest to those VFs, checks that it noticed nothing, and ends the source. paused, booting: the guest is, and
        the caller looks at it afterwards."""
        source, sources = self.qemu, [vf.host for vf in self.qemu.vfs]
        destination = destination or self.start(addresses, incoming=True)
        try:
            before = self.guest.stat if paused or booting else self.guest.fresh()
            blocked = source.qmp("query-migrate").get("blocked-reasons", [])
            demand(not blocked, f"blocked-reasons: {blocked}")
            with Trace() as trace:
                migration = self.migration(destination, capabilities=capabilities, parameters=parameters)
                migration.begin()
                result = migration.finish(progress=progress, resume=not paused)
                demand(result.status == "completed",
                       f"the migration {result.status}: {result.reason}; destination: {destination.log()}")
        except BaseException:
            destination.kill()
            raise
        # From here on the guest is there, whatever is found wrong.
        self.qemu = destination
        moved = time.monotonic()
        source.quit()
        if traffic and not paused and not booting:
            self.demand_traffic(before, "behind the migration")
        elif not traffic:
            self.demand_unharmed(before, self.guest.fresh(SETTLE), "behind the migration")
        stop, resume = source.qmp.time_of("STOP", result.begin), destination.qmp.time_of("RESUME", result.begin)
        if self.probe and resume and not paused and not booting:
            wait_until(lambda: self.probe.answers and self.probe.answers[-1] > resume, SETTLE, "a datagram is answered")
        gap, parts = self.probe.gap(result.begin, moved) if self.probe else None, {}
        if gap and stop and resume:
            parts = {"before the stop": 1000 * (stop - gap[0]), "stopped": 1000 * (resume - stop), "behind it": 1000 * (gap[1] - resume)}
        return Move(result, 1000 * (gap[1] - gap[0]) if gap else 0.0, parts, trace.stopped(sources[0], addresses[0]), trace)

    def end(self):
        if self.qemu:
            self.qemu.kill()
            self.qemu = None
