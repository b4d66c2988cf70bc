# SPDX-License-Identifier: Apache-2.0
"""Cells of the fault matrix (vfio-pci-hooks/docs/fault-matrix.md) with a VMM in them: what the page says of a cell is what
QEMU's guest must find. The page marks with * which cells are shown here, and this file has exactly those.

    page = promises("vfio-pci-hooks/docs/fault-matrix.md")
    page["worker_killed", "PRE_COPY"].call      # "EIO"

Each begins with a guest that has traffic on `session.qemu`, and leaves it so.
"""
import dataclasses
import errno
import os
import re
import signal

from host import Trace
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
    CELLS = {
        ("worker_killed", "PRE_COPY"): "worker_lost",
        ("worker_killed", "STOP_COPY"): "worker_lost",
    }

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
