# SPDX-License-Identifier: Apache-2.0
"""One migration between two QEMU processes.

    migration = Migration(source, destination, f"{folder}/m")
    migration.begin()
    result = migration.finish()         # a Result, whatever came of it

Errors: Timeout and QmpError where QEMU does not answer; a migration that fails is a result.
"""
import dataclasses
import os
import time

from qmp import Timeout, wait_until

# All that any test sets: QEMU keeps them from one migration to the next.
CAPABILITIES = {"events": True, "return-path": True, "switchover-ack": True, "multifd": False, "pause-before-switchover": False}
# All of the guest's memory is sent while it stands still where the kernel cannot tell what the device wrote.
PARAMETERS = {"downtime-limit": 60000, "max-bandwidth": 2 << 30}
ENDED = ("completed", "failed", "cancelled")


@dataclasses.dataclass
class Result:
    status: str
    reason: str       # QEMU's error, if any
    begin: float      # time.monotonic()
    end: float
    info: dict        # query-migrate of the source

    def bytes_by_phase(self):
        ram = self.info.get("ram", {})
        return {"memory, guest running": ram.get("precopy-bytes", 0),
                "memory, guest stopped": ram.get("downtime-bytes", 0),
                "devices": self.info.get("vfio", {}).get("transferred", 0)}


class Migration:
    def __init__(self, source, destination, path, capabilities=None, parameters=None):
        self.source, self.destination = source, destination
        self.path = self.from_path = path  # where the destination listens, and where the source goes
        self.capabilities = {**CAPABILITIES, **(capabilities or {})}
        self.parameters = {**PARAMETERS, **(parameters or {})}

    def begin(self, destination_capabilities=None):
        for qemu, more in ((self.source, {}), (self.destination, destination_capabilities or {})):
            wanted = {**self.capabilities, **more}
            qemu.qmp("migrate-set-capabilities", capabilities=[{"capability": name, "state": on} for name, on in wanted.items()])
            qemu.qmp("migrate-set-parameters", **{k.replace("-", "_"): v for k, v in self.parameters.items()})
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.destination.qmp("migrate-incoming", uri=f"unix:{self.path}")
        self.began = time.monotonic()
        self.source.qmp("migrate", uri=f"unix:{self.from_path}")

    def status(self):
        return self.source.qmp("query-migrate")

    def wait_for(self, statuses, limit=180):
        def reached():
            info = self.status()
            return info if info.get("status") in statuses else None
        return wait_until(reached, limit, f"migration {'/'.join(statuses)}", step=0.1)

    def cancel(self):
        self.source.qmp("migrate_cancel")

    def finish(self, limit=180, progress=None, resume=True):
        """Waits for the end, and where it succeeds for the guest to run there. progress(info) is told how far it is."""
        def ended():
            info = self.status()
            if progress:
                progress(info)
            return info if info.get("status") in ENDED else None
        try:
            info = wait_until(ended, limit, "end of the migration", step=0.1)
        except Timeout as timeout:
            raise Timeout(f"{timeout}; source {self.source.status()}: {self.status()}; destination: "
                          f"{self.destination.log().strip()}") from timeout
        if info["status"] == "completed" and resume:
            self.destination.qmp.wait_for("RESUME", 60, since=self.began)
        return Result(info["status"], info.get("error-desc", ""), self.began, time.monotonic(), info)
