# SPDX-License-Identifier: Apache-2.0
"""Cells of the fault matrix (vfio-pci-hooks/docs/fault-matrix.md) with a VMM in them: what the page says of a cell is what
QEMU's guest must find. The page marks with * which cells are shown here, and this file has exactly those.

    page = promises("vfio-pci-hooks/docs/fault-matrix.md")
    page["worker_killed", "PRE_COPY"].call      # "EIO"

A function's name is its cells'. Each begins with a guest that has traffic on `session.qemu`, and leaves it so; those of LAST
leave a guest that was booted anew.
"""
import dataclasses
import errno
import os
import re
import signal
import threading
import time

from host import HostError, Trace, run, write
from qmp import wait_until
from session import demand

SLOW, FAST = {"max-bandwidth": 200000}, {"max-bandwidth": 2 << 30}


@dataclasses.dataclass
class Promise:
    """One cell of the page."""
    call: str     # errno of the read() or write() of the device state, or "goes on"
    state: str    # of the device afterwards, or "as before"
    device: str
    whole: str    # who makes it whole
    shown: bool   # it is marked


def promises(path):
    """{(event, state): Promise} of the page."""
    cells, event = {}, None
    with open(path, encoding="utf-8") as page:
        for line in page:
            if line.startswith("## "):
                event = line[3:].strip()
            elif event and re.match(r"\| [A-Z]", line):
                states, *rest = [cell.strip() for cell in line.strip().strip("|").split("|")]
                for state in states.split(", "):
                    cells[event, state.rstrip("*")] = Promise(*(rest + [""] * 4)[:4], state.endswith("*"))
    return cells


class Faults:
    # What leaves the guest whole.
    ORDER = {
        ("worker_killed", "PRE_COPY"): "worker_lost",
        ("worker_stopped", "PRE_COPY"): "worker_lost",
        ("worker_killed", "STOP_COPY"): "worker_lost",
        ("worker_stopped", "STOP_COPY"): "worker_lost",
        ("worker_killed", "RESUMING"): "worker_lost",
        ("worker_stopped", "RESUMING"): "worker_lost",
        ("vmm_killed", "RESUMING"): "destination_killed",
        ("module_unload", "PRE_COPY"): "module_unload",
        ("worker_stopped", "RUNNING"): "worker_lost_while_running",
        ("worker_killed", "RUNNING"): "worker_lost_while_running",
        ("sysfs_reset", "PRE_COPY"): "sysfs_reset",
        ("device_reset", "PRE_COPY"): "guest_reboots",
    }
    # What takes the guest along, or the function.
    LAST = {
        ("vmm_killed", "PRE_COPY"): "source_killed",
        ("vfs_removed", "PRE_COPY"): "functions_go",
        ("pf_unbound", "PRE_COPY"): "functions_go",
    }
    CELLS = {**ORDER, **LAST}

    def __init__(self, session, scenarios, page):
        self.s, self.host, self.scenarios, self.page = session, session.host, scenarios, promises(page)

    def show(self, event, state):
        """One cell. Raises when something is not as the page says."""
        getattr(self, self.CELLS[event, state])(event, state, self.page[event, state])

    # ---- helpers

    def state(self, vf):
        return self.host.status(vf)["migration_state"]

    def begin(self, destination, state):
        """A migration that stands still with the device of its source in that state, or with that of its destination."""
        vf = destination.vfs[0].host if state == "RESUMING" else self.s.qemu.vfs[0].host
        if state == "STOP_COPY":
            migration = self.s.migration(destination, capabilities={"pause-before-switchover": True})
        else:
            migration = self.s.migration(destination, parameters=SLOW)
        migration.begin()
        if state == "STOP_COPY":
            migration.wait_for(("pre-switchover",))
        wait_until(lambda: self.state(vf) == state, 60, f"{vf} in {state}", step=0.2)
        if state != "STOP_COPY":  # a stream belongs to the worker that has begun it
            wait_until(lambda: migration.status().get("vfio", {}).get("transferred", 0) > 0, 60, "the first record", step=0.2)
        return migration, vf

    def go_on(self, migration, state):
        if state == "STOP_COPY":
            self.s.qemu.qmp("migrate-continue", state="pre-switchover")
        elif self.s.qemu.qmp("query-migrate")["status"] not in ("failed", "completed"):
            self.s.qemu.qmp("migrate-set-parameters", **{k.replace("-", "_"): v for k, v in FAST.items()})
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

    def next_worker(self, vf):
        """The administrator's part, where a supervisor has gone, too."""
        self.scenarios.restore_configuration()
        wait_until(lambda: self.host.status(vf)["worker"]["ready"], 60, f"another worker for {vf}", step=0.2)

    def lose_worker(self, event, vf):
        """With nobody who would start the next one within the limit. Returns what ends the event."""
        status = self.host.status(vf)
        supervisor, worker = status["supervisor"]["pid"], status["worker"]["pid"]
        if event == "worker_killed":
            os.kill(supervisor, signal.SIGKILL)
            os.kill(worker, signal.SIGKILL)
            return lambda: None
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(worker, signal.SIGSTOP)

        def wake_up():
            os.kill(supervisor, signal.SIGCONT)
            os.kill(worker, signal.SIGCONT)
            wait_until(lambda: self.host.status(vf)["worker"]["pid"] not in (worker, None), 60,
                       "the supervisor replaces a worker that was revoked", step=0.2)
        return wake_up

    def boot_anew(self, vf):
        self.s.qemu = None
        self.s.boot([vf])

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
        s, vf = self.s, self.s.qemu.vfs[0].host
        before = s.guest.fresh()
        wake_up = self.lose_worker(event, vf)
        try:
            # igbvf looks after its mailbox and its statistics every two seconds.
            wait_until(lambda: self.host.status(vf)["counters"]["missed"] > 3, 60, "accesses of the guest with no worker")
            self.demand_state(vf, state, promise)
            s.demand_traffic(before, f"{event} in {state}")
        finally:
            wake_up()
        self.next_worker(vf)
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

    def reset_guest(self):
        s = self.s
        moment = time.monotonic()
        s.qemu.qmp("system_reset")
        s.wait_for_reboot(moment)
        demand(not self.host.status(s.qemu.vfs[0].host)["incomplete"], "a reset by the guest has not made the device whole")

    def destination_killed(self, event, state, promise):
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        before = s.guest.fresh()
        migration, vf = self.begin(destination, state)
        destination.kill()
        result = self.go_on(migration, state)
        self.demand_at_source(result, before, "when the destination's QEMU was killed")
        demand(promise.device == "closed" and self.state(vf) is None, f"{vf} is {self.state(vf)}")
        self.scenarios.move()

    def module_unload(self, event, state, promise):
        demand(promise.call == "goes on", f"the page says {promise.call}")

        def unload():
            try:
                run("rmmod", "vfio_pci_hooks")
            except HostError as error:
                demand("in use" in str(error), f"rmmod: {error}")
            else:
                demand(False, "the module was unloaded")
        self.during_move(unload)

    def during_move(self, what):
        """A migration that succeeds although something happens in PRE_COPY."""
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        done = []

        def act(info):
            if info.get("status") == "active" and not done and self.state(self.scenarios.here()[0]) == "PRE_COPY":
                done.append(True)
                what()
                s.qemu.qmp("migrate-set-parameters", **{k.replace("-", "_"): v for k, v in FAST.items()})
        move = self.scenarios.move(destination=destination, parameters=SLOW, progress=act)
        demand(done, "the migration was over before anything could happen")
        return move

    def sysfs_reset(self, event, state, promise):
        """The guest's driver does not know of it: it is the administrator who took its rings. Its own reset helps."""
        self.reset_in_pre_copy(state, promise, lambda vf: write(f"/sys/bus/pci/devices/{vf}/reset", "1"))
        demand(self.s.qemu.status() == "running", f"the source is {self.s.qemu.status()}")
        self.reset_guest()

    def guest_reboots(self, event, state, promise):
        moment = time.monotonic()
        self.reset_in_pre_copy(state, promise, lambda vf: self.s.qemu.qmp("system_reset"))
        self.s.wait_for_reboot(moment)
        self.scenarios.move()

    def reset_in_pre_copy(self, state, promise, reset):
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

    def source_killed(self, event, state, promise):
        s = self.s
        destination = s.start(self.scenarios.there(), incoming=True)
        try:
            _, vf = self.begin(destination, state)
            s.qemu.kill()
            wait_until(lambda: destination.process.poll() is not None or destination.qmp("query-migrate").get("status") == "failed",
                       60, "the destination gives up")
            demand(promise.device == "closed" and self.state(vf) is None, f"{vf} is {self.state(vf)}")
        finally:
            destination.quit()
        self.boot_anew(vf)
        self.scenarios.move()

    def functions_go(self, event, state, promise):
        """The VMM keeps them until it is done: the migration ends as ever, the guest goes on at the destination."""
        s, pf = self.s, f"/sys/bus/pci/devices/{self.host.pf}"
        demand(promise.call == "goes on", f"the page says {promise.call}")
        driver = os.path.realpath(f"{pf}/driver")
        if event == "vfs_removed":
            thread = threading.Thread(target=write, args=(f"{pf}/sriov_numvfs", "0"), daemon=True)
        else:
            thread = threading.Thread(target=write, args=(f"{driver}/unbind", self.host.pf), daemon=True)

        def go():
            thread.start()
            time.sleep(1)
            demand(thread.is_alive(), "the functions went while a VMM had one open")
            self.demand_state(self.scenarios.here()[0], state, promise)
        self.during_move(go)
        before = s.guest.fresh()
        s.demand_traffic(before, "with its function about to go")
        s.qemu.quit()
        s.qemu = None
        thread.join(120)
        demand(not thread.is_alive(), "the functions did not go although nobody had them")
        if event == "pf_unbound":
            write(f"{driver}/bind", self.host.pf)
            self.host.raise_pf()
            s.prepare_host()
        write(f"{pf}/sriov_numvfs", str(len(self.host.vfs)))
        demand(not any(self.host.status(vf)["bound"] for vf in self.host.vfs), "another function has inherited a definition")
        self.scenarios.restore_configuration()
        self.boot_anew(self.host.vfs[0])
        self.scenarios.move()
