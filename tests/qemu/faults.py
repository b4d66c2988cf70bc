# SPDX-License-Identifier: Apache-2.0
"""Cells of the fault matrix (vfio-pci-hooks/docs/fault-matrix.md) with a VMM in them: what the page says of a cell is what
QEMU's guest must find. The page marks with * which cells are shown here, and this file has exactly those.

    page = promises("vfio-pci-hooks/docs/fault-matrix.md")
    page["worker_killed", "PRE_COPY"].call      # "EIO"

Each begins with a guest that has traffic on `session.qemu`, and leaves it so; behind each the guest is migrated once more, and
nothing is held that was not before.
"""
import dataclasses
import errno
import functools
import os
import re
import signal
import threading
import time

from host import HostError, Trace, run, write
from qmp import wait_until
from session import demand
from spoiler import Spoiler

SLOW, FAST = {"max-bandwidth": 200000}, {"max_bandwidth": 2 << 30, "downtime_limit": 60000}
# Of what a slow migration sends, memory alone takes all on a fast machine: the device gets its turn before it is slowed down.
ENDLESS = {"downtime-limit": 1}


@dataclasses.dataclass
class Promise:
    """One cell of the page."""
    call: str     # errno of the read() or write() of the device state, or "goes on"
    state: str    # of the device afterwards, or "as before"
    device: str
    whole: str    # who makes it whole
    shown: bool   # it is marked


def promises(path):
    """{(event, state): Promise} of the page, for the NIC."""
    cells, event = {}, None
    with open(path, encoding="utf-8") as page:
        for line in page:
            if line.startswith("## "):
                event = line[3:].strip()
            elif event and re.match(r"\| [A-Z]", line):
                states, *rest = [cell.strip() for cell in line.strip().strip("|").split("|")]
                if not {"all", "NIC"} & set(rest[-1].split(", ")):
                    continue
                for state in states.split(", "):
                    cells[event, state.rstrip("*")] = Promise(*(rest + [""] * 4)[:4], state.endswith("*"))
    return cells


class Faults:
    CELLS = {
        ("worker_killed", "RUNNING"): "worker_lost_while_running",
        ("worker_stopped", "RUNNING"): "worker_lost_while_running",
        ("worker_killed", "PRE_COPY"): "worker_lost",
        ("worker_stopped", "PRE_COPY"): "worker_lost",
        ("device_reset", "PRE_COPY"): "guest_reboots",
        ("sysfs_reset", "PRE_COPY"): "sysfs_reset",
        ("module_unload", "PRE_COPY"): "module_unload",
        ("vf_unbound", "PRE_COPY"): "function_is_unbound",
        ("worker_killed", "STOP_COPY"): "worker_lost",
        ("worker_stopped", "STOP_COPY"): "worker_lost",
        ("worker_killed", "RESUMING"): "worker_lost",
        ("worker_stopped", "RESUMING"): "worker_lost",
        ("vmm_killed", "RESUMING"): "destination_killed",
        ("stream_truncated", "RESUMING"): "stream_spoiled",
        ("stream_flipped", "RESUMING"): "stream_spoiled",
        # What takes the guest along.
        ("vmm_killed", "PRE_COPY"): "source_killed",
        ("vfs_removed", "PRE_COPY"): "functions_are_removed",
    }

    def __init__(self, session, scenarios, page):
        self.s, self.host, self.scenarios, self.page = session, session.host, scenarios, promises(page)

    def show(self, event, state):
        """One cell. Raises when something is not as the page says."""
        before = self.held()
        getattr(self, self.CELLS[event, state])(event, state, self.page[event, state])
        self.scenarios.move()
        self.scenarios.restore_configuration()
        wait_until(lambda: self.held() == before, 30, f"only {before} is held", step=0.2)

    # ---- helpers

    def state(self, vf):
        return self.host.status(vf)["migration_state"]

    def begin(self, destination, state):
        """A migration that stands still with the device of its source in that state, or with that of its destination."""
        vf = destination.vfs[0].host if state == "RESUMING" else self.s.qemu.vfs[0].host
        if state == "STOP_COPY":
            migration = self.s.migration(destination, capabilities={"pause-before-switchover": True})
        else:
            migration = self.s.migration(destination, parameters=ENDLESS)
        migration.begin()
        if state == "STOP_COPY":
            migration.wait_for(("pre-switchover",))
        wait_until(lambda: self.state(vf) == state, 60, f"{vf} in {state}", step=0.2)
        if state != "STOP_COPY":  # a stream belongs to the worker that has begun it
            wait_until(lambda: migration.status().get("vfio", {}).get("transferred", 0) > 0, 60, "the first record", step=0.2)
            self.s.qemu.qmp("migrate-set-parameters", **{name.replace("-", "_"): value for name, value in SLOW.items()})
        return migration, vf

    def go_on(self, migration, state):
        if state == "STOP_COPY":
            self.s.qemu.qmp("migrate-continue", state="pre-switchover")
        elif self.s.qemu.qmp("query-migrate")["status"] not in ("failed", "completed"):
            self.s.qemu.qmp("migrate-set-parameters", **FAST)
        return migration.finish(resume=False)

    def demand_state(self, vf, state, promise):
        wanted = state if promise.state == "as before" else promise.state
        is_in = self.state(vf)
        demand(is_in == wanted, f"{vf} is in {is_in}, the page says {wanted}")

    def demand_call(self, trace, vf, promise):
        """The device state's last read() or write() ended as the page says. Where a guest is at work its own access may be what
        waits for a worker, and the next call finds none."""
        calls = [answer for _, answer, _ in trace.data(vf)]
        wanted = {-getattr(errno, promise.call)} | ({-errno.EIO} if promise.call == "ETIMEDOUT" else set())
        demand(wanted & set(calls), f"{vf}: the page says {promise.call}; the calls' answers were {calls[-6:]}")

    def demand_at_source(self, result, before, why):
        s = self.s
        demand(result.status == "failed", f"the migration {result.status}")
        wait_until(lambda: s.qemu.status() == "running", 60, "the guest runs at the source")
        s.demand_traffic(before, f"at the source, {why}")

    def next_worker(self, vf, config=None):
        """The administrator's part, where a supervisor has gone, too. A worker that was only stopped may itself be the next."""
        self.host.apply(config or self.scenarios.config)

        def serves():
            status = self.host.status(vf)
            return status["worker"]["ready"] and (status["served"] or not status["open"])
        wait_until(serves, 60, f"a worker for {vf}", step=0.2)

    def lose_worker(self, event, vf):
        """With nobody who would start the next one within the limit. Returns what ends the event."""
        status = self.host.status(vf)
        both = [status["supervisor"]["pid"], status["worker"]["pid"]]
        send(signal.SIGKILL if event == "worker_killed" else signal.SIGSTOP, both)
        return functools.partial(send, signal.SIGCONT, both if event == "worker_stopped" else [])

    def reset_guest(self):
        s = self.s
        moment = time.monotonic()
        s.qemu.qmp("system_reset")
        s.wait_for_reboot(moment)

    def boot_anew(self, vf):
        s = self.s
        moment = time.monotonic()
        s.qemu = None
        s.qemu = s.start([vf])
        s.wait_for_reboot(moment)

    def during_move(self, what):
        """A migration that goes on to its end although something happens in PRE_COPY: what(source, destination)."""
        s, vfs = self.s, self.scenarios.here() + self.scenarios.there()
        destination = s.start(self.scenarios.there(), incoming=True)
        done = []

        def act(info):
            if info.get("status") == "active" and not done and self.state(vfs[0]) == "PRE_COPY":
                done.append(True)
                what(*vfs)
                s.qemu.qmp("migrate-set-parameters", **FAST)
        self.scenarios.move(destination=destination, parameters=SLOW, progress=act)
        demand(done, "the migration was over before anything could happen")

    def held(self):
        """What could be left behind."""
        def lines(path, text):
            with open(path, encoding="utf-8") as file:
                return sum(text in line for line in file)
        with open("/sys/module/vfio_pci_hooks/refcnt", encoding="utf-8") as file:
            references = int(file.read())
        return {"references to the module": references, "areas of its memory": lines("/proc/vmallocinfo", "vph_"),
                "processes of Hookline": int(run("pgrep", "-fc", self.host.program, check=False)),
                "processes of QEMU": int(run("pgrep", "-c", "qemu-system", check=False))}

    # ---- cells

    def worker_lost(self, event, state, promise):
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        try:
            before = s.guest.fresh()
            with Trace() as trace:
                migration, vf = self.begin(destination, state)
                wake_up = self.lose_worker(event, vf)
                try:
                    self.demand_state(vf, state, promise)
                    result = self.go_on(migration, state)
                    self.demand_at_source(result, before, f"{event} in {state}")
                finally:
                    wake_up()
            self.demand_call(trace, vf, promise)
        finally:
            destination.quit()
        self.next_worker(vf)

    def worker_lost_while_running(self, event, state, promise):
        """The guest's accesses pass to its device, which works as before; what nobody saw must not be migrated."""
        s, vf = self.s, self.scenarios.there()[0]
        config = self.passing(vf)
        self.scenarios.move()
        before = s.guest.fresh()
        missed = self.host.status(vf)["counters"]["missed"]
        wake_up = self.lose_worker(event, vf)
        try:
            # igbvf looks after its mailbox and its statistics every two seconds.
            wait_until(lambda: self.host.status(vf)["counters"]["missed"] > missed + 3, 60, "accesses of the guest with no worker")
            self.demand_state(vf, state, promise)
            s.demand_traffic(before, f"{event} in {state}")
        finally:
            wake_up()
        self.next_worker(vf, config)
        demand(self.host.status(vf)["incomplete"], "hookline status does not say that accesses were missed")
        destination = s.start(self.scenarios.there(), incoming=True)
        try:
            before = s.guest.fresh()
            with Trace() as trace:
                migration = s.migration(destination)
                migration.begin()
                result = migration.finish(resume=False)
            answers = [answer for _, answer, _ in trace.data(vf)] + [answer for _, _, answer, _ in trace.arcs(vf)]
            demand(-errno.ENODATA in answers and "ENODATA" in promise.whole, f"no call said ENODATA: {answers}")
            self.demand_at_source(result, before, "with accesses that nobody saw")
        finally:
            destination.quit()
        self.reset_guest()
        demand(not self.host.status(vf)["incomplete"], "a reset by the guest has not made the device whole")

    def passing(self, vf):
        """Sets that VF up so that a guest's access passes to it where no worker answers. Returns the configuration."""
        with open(self.scenarios.config, encoding="utf-8") as file:
            text = re.sub(r"vf: \S+ }", f"vf: {self.host.vfs.index(vf)} }}", file.read())
        path = os.path.join(self.s.folder, "passing.yaml")
        write(path, text.replace("    chain:", "    on_worker_loss: pass\n    chain:"))
        self.host.apply(path)
        return path

    def guest_reboots(self, event, state, promise):
        self.reset_in_migration(state, promise, lambda vf: self.s.qemu.qmp("system_reset"))
        self.s.wait_for_reboot(time.monotonic())

    def sysfs_reset(self, event, state, promise):
        """The guest's driver does not know that the administrator took its rings. Its own reset helps."""
        self.reset_in_migration(state, promise, lambda vf: write(f"/sys/bus/pci/devices/{vf}/reset", "1"))
        self.reset_guest()

    def reset_in_migration(self, state, promise, reset):
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        try:
            with Trace() as trace:
                migration, vf = self.begin(destination, state)
                reset(vf)
                wait_until(lambda: self.state(vf) == promise.state, 30, f"{vf} in {promise.state}, as the page says")
                result = self.go_on(migration, state)
            demand(result.status == "failed", f"the migration {result.status}")
            self.demand_call(trace, vf, promise)
            wait_until(lambda: s.qemu.status() == "running", 60, "the guest runs at the source")
        finally:
            destination.quit()

    def module_unload(self, event, state, promise):
        def unload(*_):
            try:
                run("rmmod", "vfio_pci_hooks")
            except HostError as error:
                demand("in use" in str(error), f"rmmod: {error}")
            else:
                demand(False, "the module was unloaded")
        demand(promise.call == "goes on", f"the page says {promise.call}")
        self.during_move(unload)

    def function_is_unbound(self, event, state, promise):
        """As long as a VMM has the function, it stays: the guest leaves it by its migration."""
        source = self.scenarios.here()[0]
        unbinding = Removal("/sys/bus/pci/drivers/vfio-pci-hooks/unbind", source)

        def unbind(*_):
            unbinding.begin()
            self.demand_state(source, state, promise)
        demand(promise.call == "goes on", f"the page says {promise.call}")
        self.during_move(unbind)
        unbinding.finish()
        demand(not self.host.status(source)["bound"], f"{source} is still bound")
        self.scenarios.restore_configuration()

    def functions_are_removed(self, event, state, promise):
        """The same, with the destination's function among them: it goes when the guest has ended."""
        s, numvfs = self.s, f"/sys/bus/pci/devices/{self.host.pf}/sriov_numvfs"
        removal = Removal(numvfs, "0")

        def remove(source, _):
            removal.begin()
            self.demand_state(source, state, promise)
        demand(promise.call == "goes on", f"the page says {promise.call}")
        self.during_move(remove)
        s.demand_traffic(s.guest.fresh(), "with its function about to go")
        s.qemu.quit()
        s.qemu = None
        removal.finish()
        write(numvfs, str(len(self.host.vfs)))
        demand(not any(self.host.status(vf)["bound"] for vf in self.host.vfs), "a new function has inherited a definition")
        self.scenarios.restore_configuration()
        self.boot_anew(self.host.vfs[0])

    def destination_killed(self, event, state, promise):
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        before = s.guest.fresh()
        migration, vf = self.begin(destination, state)
        destination.kill()
        self.demand_at_source(self.go_on(migration, state), before, "when the destination's QEMU was killed")
        self.demand_closed(vf, promise)

    def source_killed(self, event, state, promise):
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        try:
            _, vf = self.begin(destination, state)
            s.qemu.kill()
            self.demand_gone(destination)
            self.demand_closed(vf, promise)
        finally:
            destination.quit()
        self.boot_anew(vf)

    def stream_spoiled(self, event, state, promise):
        """On its way, where no VMM looks into it."""
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        vf = destination.vfs[0].host
        try:
            before = s.guest.fresh()
            with Trace() as trace:
                migration = s.migration(destination)
                with Spoiler(migration, cut=event == "stream_truncated") as spoiler:
                    migration.begin()
                    result = migration.finish(resume=False)
                self.demand_at_source(result, before, event)
                self.demand_gone(destination)
            demand(spoiler.done, "no state of the device came by")
            if promise.call == "goes on":
                failed = [answer for _, answer, _ in trace.data(vf) if answer < 0]
                demand(not failed, f"{vf}: the page says {promise.call}; the calls' answers were {failed}")
            else:
                self.demand_call(trace, vf, promise)
            arcs = [(a, b) for a, b, _, _ in trace.arcs(vf)]
            demand(promise.state == "as before" and not any(a == state for a, _ in arcs), f"{vf} left {state}: {arcs}")
        finally:
            destination.quit()

    def demand_closed(self, vf, promise):
        demand(promise.device == "closed" and not self.host.status(vf)["open"], f"{vf} is open, the page says {promise.device}")

    @staticmethod
    def demand_gone(destination):
        wait_until(lambda: destination.process.poll() is not None, 60, "the destination gives up")


class Removal:
    """A write to sysfs that ends when the VMM has given the function back."""

    def __init__(self, path, text):
        self._path, self._text, self._error = path, text, None
        self._thread = threading.Thread(target=self._write, daemon=True)

    def begin(self):
        self._thread.start()
        time.sleep(1)
        demand(self._thread.is_alive(), f"{self._text} to {self._path}: it did not wait for the VMM: {self._error}")

    def finish(self):
        self._thread.join(120)
        demand(not self._thread.is_alive(), f"{self._text} to {self._path}: it waits although nobody has the function")
        demand(not self._error, f"{self._text} to {self._path}: {self._error}")

    def _write(self):
        try:
            write(self._path, self._text)
        except OSError as error:
            self._error = error


def send(number, processes):
    for process in processes:
        os.kill(process, number)
