# SPDX-License-Identifier: Apache-2.0
"""What can happen to a guest with a passthrough NIC that is migrated, one function each. They follow one another on one
guest: each begins with a guest that has traffic on `session.qemu`, and leaves it so.

A function's name opens with the requirements that it pins. It raises when something is not as promised.
"""
import contextlib
import os
import signal
import time

import compatibility
from host import write
from inner import ROOT_PORT, QemuEnded, Vf
from qmp import Timeout, wait_until
from session import SETTLE, demand

# In the build folder: each a plugin, in a folder of its own.
WRONG = "tests/qemu/wrong"
OLDER = "tests/abi/nic_v1"
NO_CHAIN = "Unknown savevm section or instance '0000:00:04.0/vfio' 0"


class Scenarios:
    def __init__(self, session, config, round_trips):
        self.s, self.host, self.config, self.round_trips = session, session.host, config, round_trips
        self.moves = 0

    # ---- helpers

    def here(self):
        return [vf.host for vf in self.s.qemu.vfs]

    def there(self):
        """The other half of the VFs: 0 and 2 belong together, 1 and 3 do."""
        pairs = dict(zip(self.host.vfs[0::2], self.host.vfs[1::2]))
        pairs.update({b: a for a, b in pairs.items()})
        return [pairs[vf] for vf in self.here()]

    def move(self, **more):
        source = self.here()
        move = self.s.move(self.there(), **more)
        self.moves += 1
        info, device = move.result.info, move.device_ms
        print(f"    {source[0]} -> {self.here()[0]}: total {info['total-time']} ms, downtime {info['downtime']} ms, gap in the traffic "
              f"{move.gap_ms:.0f} ms ({', '.join(f'{k} {v:.0f}' for k, v in move.gap_parts.items())}), of that the device {sum(device.values()):.1f} ms "
              f"({', '.join(f'{k} {v:.1f}' for k, v in device.items())}), {info.get('vfio', {}).get('transferred', 0)} bytes of device state")
        for vf in source + self.here():
            for begin, to, answer, _ in move.trace.arcs(vf):
                demand(answer == 0, f"{vf}: the arc {begin} -> {to} failed: {answer}")
        return move

    def fails(self, destination, why, stops=False):
        """A migration that is to fail at the destination; why: QEMU's or Hookline's words."""
        with self.attempt(destination) as migration:
            self.demand_end(migration, "failed", why)
            self.demand_stopped(migration, stops)

    @contextlib.contextmanager
    def attempt(self, destination=None, destination_capabilities=None, **settings):
        """A migration that has begun and does not succeed: behind the block the guest goes on here."""
        s = self.s
        destination = destination or s.start(self.there(), incoming=True)
        try:
            before = s.guest.fresh()
            migration = s.migration(destination, **settings)
            migration.begin(destination_capabilities)
            yield migration
            # The source says "failed" a moment before it runs again.
            wait_until(lambda: s.qemu.status() == "running", 60, "the guest runs at the source")
            s.demand_traffic(before, "at the source after the migration that did not succeed")
        finally:
            destination.quit()

    def demand_stopped(self, migration, wanted):
        stopped = self.s.qemu.qmp.has("STOP", since=migration.began)
        demand(stopped == wanted, "the guest was stopped at the source" if stopped else "the guest was not even stopped")

    def demand_end(self, migration, status, why="", resume=True):
        result = migration.finish(resume=resume)
        demand(result.status == status, f"the migration {result.status}, it had to be {status} {why}")

    def configured(self, vf, chain, folder=None):
        """Sets up one VF with that chain instead of its own; folder: where the first plugins are looked for. Returns the
        configuration and its folders."""
        index = self.host.vfs.index(vf)
        path = os.path.join(self.s.folder, "other.yaml")
        write(path, f'devices:\n  - match: {{ pf: "{self.host.pf}", vf: {index} }}\n    guest_memory: read\n    limits: {{ access: 5s }}\n    chain:\n'
              + "".join(f"      - plugin: {plugin}\n" for plugin in chain))
        folders = ([f"{self.host.build}/{folder}"] if folder else []) + [f"{self.host.build}/plugins"]
        self.host.apply(path, folders)
        return path, folders

    def restore_configuration(self):
        self.host.apply(self.config)

    def ask(self, config, folders=()):
        """Where the guest is to go, before any QEMU opens it: config and folders are what that VF was set up with."""
        return compatibility.ask(self.host, self.here()[0], self.there()[0], config, folders)

    def asked_move(self, config, folders=()):
        """All who are asked say yes, and so it is."""
        answer = self.ask(config, folders)
        demand(answer.yes, f"the guest cannot go to {self.there()[0]}: {answer.why()}")
        return self.move()

    def wrong(self, chain, folder, reason, stops=False, asked=True):
        """The destination's chain does not fit: all who are asked before say no, QEMU's migration fails, and one line of
        Hookline's log there says why, with the same words."""
        vf = self.there()[0]
        config, folders = self.configured(vf, chain, folder)
        destination = None
        try:
            why = self.refusal(vf, config, folders, reason) if asked else reason
            mark = len(self.host.log(vf))
            destination = self.s.start([vf], incoming=True)
            self.fails(destination, reason, stops)
            self.logged(vf, mark, why)
        finally:
            if destination:
                destination.quit()
            self.restore_configuration()

    def refusal(self, vf, config, folders, reason):
        """Why all who are asked say no, which is what the log says of it, too."""
        mark = len(self.host.log(vf))
        answer = self.ask(config, folders)
        demand(not answer.yes, "all who are asked say yes")
        demand(reason in answer.why(), f"they say: {answer.why()}")
        self.logged(vf, mark, answer.why())
        return answer.why()

    def logged(self, vf, mark, text):
        """One line of the log behind the mark has this text."""
        wait_until(lambda: text in self.host.log(vf)[mark:], 10, f'the log says "{text}"')
        lines = [line for line in self.host.log(vf)[mark:].splitlines() if text in line]
        demand(len(lines) == 1, f'{len(lines)} lines of the log say "{text}": {lines}')
        print(f"    {lines[0]}")

    def worker_of(self, vf):
        return self.host.status(vf)["worker"]["pid"]

    # ---- the guest goes on at the destination

    def MV4_LD4_CH5_live_guest_under_traffic(self):
        move = self.asked_move(self.config)
        info = move.result.info
        demand(info["vfio"]["transferred"] > 0, f"QEMU moved no device state: {info}")
        walk = [(a, b) for a, b, _, _ in move.trace.arcs(self.here()[0])]
        demand(("STOP", "RESUMING") in walk and ("RESUMING", "STOP") in walk, f"the destination's device walked {walk}")

    def MP1_round_trips_under_traffic_in_both_directions(self):
        s, begin = self.s, time.monotonic()
        before = s.guest.fresh()
        s.qemu.tell_guest("changes 200")
        moves = [self.move() for _ in range(2 * self.round_trips)]
        s.qemu.tell_guest("changes 0")
        after, seconds = s.guest.fresh(), time.monotonic() - begin
        changes = after["changes"] - before["changes"]
        demand(after["failed_changes"] == before["failed_changes"], f"changes failed: {s.guest.says('change failed')[:3]}")
        demand(changes > len(moves), f"the mailbox was used for {changes} changes only")
        checked = {way: sum(nic[f"{way}_ok"] for nic in after["nics"]) - sum(nic[f"{way}_ok"] for nic in before["nics"])
                   for way in ("out", "in")}
        print(f"    {len(moves)} migrations in a row, {seconds:.0f} s; bytes checked: {checked['out']} outbound, {checked['in']} inbound, "
              f"none wrong; {changes} changes of MAC, VLANs and groups, none failed; at most: downtime "
              f"{max(m.result.info['downtime'] for m in moves)} ms, gap in the traffic {max(m.gap_ms for m in moves):.0f} ms, of that the device {max(sum(m.device_ms.values()) for m in moves):.1f} ms")

    def LD4_mailbox_in_use_while_migrating(self):
        """VLANs, multicast groups and the MAC change all the time, through the VF's mailbox, while it moves there and back."""
        s = self.s
        for _ in range(2):
            s.qemu.tell_guest("changes 200")
            before = s.guest.stat["changes"]
            s.guest.wait(lambda g: g.stat["changes"] > before + 5, 30, "changes for the mailbox")
            self.move()
            s.guest.wait(lambda g: g.stat["changes"] > before + 12, 60, "changes for the mailbox")
        s.qemu.tell_guest("changes 0")
        stat = s.guest.fresh()
        demand(stat["failed_changes"] == 0, f"changes failed: {s.guest.says('change failed')[:3]}")
        # What was set before the first migration still holds: the VLAN of the stream into the guest, and the group.
        multicasts = stat["nics"][0]["multicasts"]
        s.guest.wait(lambda g: g.stat["nics"][0]["multicasts"] > multicasts, 60, "multicast datagrams after the migrations")
        s.demand_traffic(stat, "after the last change")

    def LD4_idle_guest(self):
        s = self.s
        s.qemu.tell_guest("rate 0")
        for stream in s.streams:
            stream.rate = 0
        time.sleep(2)
        before = s.guest.fresh()
        self.move(traffic=False)
        for stream in s.streams:
            stream.rate = stream.full_rate
        s.qemu.tell_guest("rate 8192")
        s.demand_traffic(before, "of a guest that was idle while it was migrated")

    def LD4_source_paused(self):
        s = self.s
        before = s.guest.fresh()
        s.qemu.qmp("stop")
        s.qemu.qmp.wait_for("STOP", 30)
        self.move(paused=True)
        demand(s.qemu.status() == "paused", f"the destination of a paused guest is {s.qemu.status()}")
        s.qemu.qmp("cont")
        s.demand_traffic(before, "of a guest that was paused while it was migrated")

    def LD4_multifd_with_device_state(self):
        """The device's state goes through the additional channels, which QEMU's own trace says."""
        trace = ["-trace", "vfio_load_bufs_thread_start", "-trace", "vfio_load_state_device_buffer_load_end"]
        destination = self.s.start(self.there(), incoming=True, options=trace)
        self.move(destination=destination, capabilities={"multifd": True}, parameters={"multifd-channels": 3})
        demand("vfio_load_bufs_thread_start" in destination.log(), f"multifd carried no device state: {destination.log()}")

    def LD4_RL2_two_vfs_one_of_them_hot_plugged(self):
        """Each device is quiet before one of them is saved (P2P)."""
        s = self.s
        second = self.host.vfs[2 + self.host.vfs.index(self.here()[0]) % 2]
        vf = Vf(second, place=0, options=s.options, iommufd=s.iommufd, bus=ROOT_PORT)
        s.qemu.qmp("device_add", **vf.properties())
        s.qemu.vfs.append(vf)
        s.second_interface()
        sources = self.here()
        move = self.move()
        lines = move.trace.walk(sources)
        stops = [i for i, (_, to) in enumerate(lines) if to == "PRE_COPY_P2P"]
        saves = [i for i, (_, to) in enumerate(lines) if to == "STOP_COPY"]
        demand(len(stops) == 2 and len(saves) == 2 and max(stops) < min(saves), f"the sources walked {lines}")
        self.move()

    def MP5_no_page_that_the_device_wrote_is_lost(self):
        """All of memory has been sent once; then the device writes what the guest does not touch, which has to be sent again."""
        s = self.s
        arrived, written = self.receive_while_all_is_sent()
        s.qemu.tell_guest("hold 0")
        wrong = s.guest.wait(self.has_read(arrived), SETTLE, f"the guest reads the {arrived} bytes that its NIC had received")
        demand(not wrong["nics"][0]["in_wrong"], f"{wrong['nics'][0]['in_wrong']} bytes are not what the device has written")
        s.demand_traffic(wrong, "after the guest has read")
        print(f"    {written} bytes written by the device behind the first pass over memory, none lost")

    def MP5_default_options_converge_under_traffic(self):
        """QEMU's default enable-migration=auto: its rounds leave less and less, though the NIC goes on writing, until the rest
        fits the downtime. It is set so that a guest whose memory is all dirty in each round would never get there."""
        s = self.s
        limit_ms, bandwidth = 1000, 16 << 20
        move = self.move(parameters={"downtime-limit": limit_ms, "max-bandwidth": bandwidth})
        ram = move.result.info["ram"]
        fits = limit_ms * bandwidth // 1000
        demand(ram["total"] > 2 * fits, f"{fits} bytes fit the downtime, and the guest has {ram['total']}: this test proves nothing")
        demand(ram["dirty-sync-count"] >= 2, f"{ram['dirty-sync-count']} passes over memory")
        print(f"    {ram['dirty-sync-count']} passes over {ram['total'] >> 20} MiB, "
              f"sent while the guest stood still: {ram.get('downtime-bytes', 0) >> 10} KiB")

    def MP5_a_module_that_does_not_report_them_is_noticed(self):
        """The test above, with a module that has one line less."""
        s = self.s
        arrived, written = self.receive_while_all_is_sent()
        s.qemu.tell_guest("hold 0")
        try:
            stat = s.guest.wait(self.has_read(arrived), SETTLE, "the guest reads")
            lost = stat["nics"][0]["in_wrong"]
        except Timeout:  # the ring itself was lost
            lost = "the NIC's rings"
        demand(lost, "nothing was lost although nothing was reported: this test proves nothing")
        print(f"    {written} bytes written by the device behind the first pass over memory, lost: {lost}")

    @staticmethod
    def has_read(arrived):
        return lambda guest: (sum(guest.stat["nics"][0][key] for key in ("in_ok", "in_wrong")) >= arrived
                              or guest.stat["nics"][0]["in_wrong"]) and guest.stat

    def receive_while_all_is_sent(self):
        """Returns how much the guest had been sent by then, and how much of it behind the first pass over memory."""
        s, stream = self.s, self.s.streams[0]
        stream.rate = 0
        time.sleep(1)
        s.qemu.tell_guest("hold 1")
        s.guest.wait(lambda g: g.says("HL done: hold 1"), 30, "hold")
        destination = s.start(self.there(), incoming=True)
        phase, begun, amount = "first pass", stream.sent, 32768

        def progress(info):
            nonlocal phase
            if phase == "first pass" and info.get("ram", {}).get("dirty-sync-count", 0) >= 2:
                phase, stream.rate = "traffic", 16384
            if phase == "traffic" and stream.sent >= begun + amount:
                phase, stream.rate = "done", 0
                time.sleep(1)
                # Until now the guest's memory changes faster than it may be sent while the guest stands still.
                s.qemu.qmp("migrate-set-parameters", **{"downtime-limit": 60000, "max-bandwidth": 2 << 30})
        self.move(destination=destination, progress=progress, booting=True,
                  parameters={"downtime-limit": 1, "max-bandwidth": 24 << 20})
        demand(phase == "done", f"the migration was over in its {phase}")
        arrived = stream.sent
        stream.rate = stream.full_rate
        return arrived, arrived - begun

    # ---- the guest goes on at the source

    def RL2_cancelled_in_pre_copy(self):
        with self.attempt(parameters={"max-bandwidth": 200000}) as migration:
            migration.wait_for(("active",))
            wait_until(lambda: self.host.status(self.here()[0])["migration_state"] == "PRE_COPY", 30, "the device in PRE_COPY")
            migration.cancel()
            self.demand_end(migration, "cancelled")
            self.demand_stopped(migration, False)

    def RL2_cancelled_in_the_devices_stop_copy(self):
        with self.attempt(capabilities={"pause-before-switchover": True}) as migration:
            migration.wait_for(("pre-switchover",))
            state = self.host.status(self.here()[0])["migration_state"]
            demand(state == "STOP_COPY", f"before the switchover the device is in {state}")
            migration.cancel()
            self.demand_end(migration, "cancelled")

    def RL5_source_worker_killed_in_stop_copy(self):
        """What saving needs is gone: read() says so, QEMU fails the migration and the guest goes on with its device."""
        vf = self.here()[0]
        with self.attempt(capabilities={"pause-before-switchover": True}) as migration:
            migration.wait_for(("pre-switchover",))
            os.kill(self.worker_of(vf), signal.SIGKILL)
            self.s.qemu.qmp("migrate-continue", state="pre-switchover")
            self.demand_end(migration, "failed")
        wait_until(lambda: self.host.status(vf)["migration"]["possible"], 30, "another worker")

    # ---- destinations that do not fit

    def MV4_RL2_destination_of_another_model(self):
        self.wrong(["nic-82576"], f"{WRONG}/other-model",
                   'the source is a "com.intel/82576-vf", the destination a "org.hookline.test/other"')

    def MV4_RL2_destination_with_another_plugin(self):
        self.wrong(["other-nic"], f"{WRONG}/other-plugin",
                   'written by plugin "nic-82576", the destination has plugin "other-nic"')

    def MV4_RL2_destination_with_another_version(self):
        self.wrong(["nic-82576"], f"{WRONG}/other-version", 'the source emits state version 2, the destination reads 3')

    def MV4_RL2_destination_with_the_release_before(self):
        self.wrong(["nic-82576"], OLDER, 'the source emits state version 2, the destination reads 1: write 1 to parameter "state_version"')

    def MV4_MV5_release_before_and_back(self):
        """What the refusal above says to do is enough: then nic-82576 1.0 serves the guest, and hands it back."""
        source, vf = self.here()[0], self.there()[0]
        config, folders = self.configured(vf, ["nic-82576"], OLDER)
        try:
            demand(not self.ask(config, folders).yes, "the release before reads what the source emits by itself")
            self.host.set_parameter(source, "state_version", "1")
            self.asked_move(config, folders)
            self.asked_move(self.config)
        finally:
            if self.here()[0] == source:
                self.host.set_parameter(source, "state_version", "2")
                self.restore_configuration()

    def MV4_RL2_destination_with_one_plugin_more(self):
        self.wrong(["extra-state", "nic-82576"], f"{WRONG}/extra-state",
                   'plugin "extra-state" 1.0 at the destination needs its state, and the source does not have it')

    def RL2_destination_that_refuses_the_end_of_the_state(self):
        """The guest stops for a moment and goes on at the source. Nobody can be asked: the plugin says that it reads what comes."""
        self.wrong(["nic-82576"], f"{WRONG}/other-state", "section", stops=True, asked=False)

    def MV4_RL2_destination_with_a_chain_that_only_observes(self):
        """QEMU knows of no device that migrates: with enable-migration=on it does not start, otherwise it says that it cannot."""
        vf = self.there()[0]
        config, folders = self.configured(vf, ["trace"])
        try:
            answer = self.ask(config, folders)
            demand(not answer.yes and [reason["code"] for reason in answer.reasons] == ["not-migratable"], f"they say: {answer}")
            self.unsuitable(vf, "VFIO migration is not supported in kernel")
            demand("no plugin of its chain migrates it" in self.host.status(vf)["migration"]["obstacles"][0]["text"],
                   f"hookline status: {self.host.status(vf)}")
        finally:
            self.restore_configuration()

    def RL2_CH3_destination_with_no_chain(self):
        """Plain vfio-pci."""
        vf = self.there()[0]
        self.host.detach(vf)
        function = f"/sys/bus/pci/devices/{vf}"
        write(f"{function}/driver_override", "vfio-pci\n")
        write("/sys/bus/pci/drivers_probe", vf)
        try:
            self.unsuitable(vf, "VFIO migration is not supported in kernel")
        finally:
            write("/sys/bus/pci/drivers/vfio-pci/unbind", vf)
            write(f"{function}/driver_override", "\n")
            self.restore_configuration()

    def unsuitable(self, vf, reason):
        s = self.s
        try:
            s.start([vf], incoming=True).quit()
            demand(False, "QEMU started with enable-migration=on and a device that does not migrate")
        except QemuEnded as ended:
            demand(reason in str(ended), f"QEMU said: {ended}")
        destination = s.start([vf], incoming=True, vfs=[Vf(vf, options="", iommufd=s.iommufd)])
        try:
            blocked = destination.qmp("query-migrate").get("blocked-reasons", [])
            demand(any(reason in text for text in blocked), f"blocked-reasons: {blocked}")
            here = self.here()[0]
            mark = len(self.host.log(here))
            self.fails(destination, NO_CHAIN)
            demand(NO_CHAIN in destination.log(), f"QEMU said: {destination.log()}")
            said = self.host.log(here)[mark:]
            demand("the destination refused it, whose logs say why" in said, f"the source's log: {said}")
            for text in ("Unknown savevm section", reason.split(" in ")[0], "return-path"):
                demand(text in self.host.status_text(here), f"hookline status says nothing of {text}")
            print("\n".join("    " + line for line in destination.log().strip().splitlines() if "error" in line or NO_CHAIN in line))
        finally:
            destination.quit()

    def RL2_destination_without_multifd(self):
        """Another set of capabilities at the destination."""
        with self.attempt(destination_capabilities={"multifd": False}, capabilities={"multifd": True}) as migration:
            self.demand_end(migration, "failed")
            self.demand_stopped(migration, False)

    def CH5_blocked_reasons_say_why(self):
        """Where the kernel cannot report dirty pages QEMU's default blocks the migration, and says so."""
        s = self.s
        qemu = s.start([self.there()[0]], incoming=True, vfs=[Vf(self.there()[0], options="", iommufd=s.iommufd)])
        try:
            blocked = qemu.qmp("query-migrate").get("blocked-reasons", [])
        finally:
            qemu.quit()
        status = self.host.status(self.there()[0])["migration"]
        if status["needs_enable_migration"]:
            demand(any("dirty tracking" in text for text in blocked), f"blocked-reasons: {blocked}")
            print(f"    {blocked[0]}")
        else:
            demand(not blocked, f"blocked-reasons: {blocked}")

    # ---- failures late in the migration

    def RL2_last_write_fails_without_return_path(self):
        """The one case that QEMU cannot tell: without return-path the source reports success. The guest is not lost: it stands
        in postmigrate at the source, and `cont` lets it go on. The manual says so."""
        s = self.s
        self.configured(self.there()[0], ["nic-82576"], f"{WRONG}/other-state")
        try:
            with self.attempt(capabilities={"return-path": False, "switchover-ack": False}) as migration:
                # Where the source notices: say so in the manual.
                self.demand_end(migration, "completed", resume=False)
                wait_until(lambda: migration.destination.process.poll() is not None, 60, "the destination gives up")
                demand(s.qemu.status() == "postmigrate", f"the source is {s.qemu.status()}")
                s.qemu.qmp("cont")
        finally:
            self.restore_configuration()

    def RL2_first_write_fails_without_switchover_ack(self):
        """The guest stops for a moment, and goes on by itself."""
        self.configured(self.there()[0], ["nic-82576"], f"{WRONG}/other-model")
        try:
            with self.attempt(capabilities={"switchover-ack": False}) as migration:
                self.demand_end(migration, "failed")
        finally:
            self.restore_configuration()

    def RL5_destination_worker_killed_before_the_start(self):
        """The state is loaded and applied; the kernel starts the device, worker or not."""
        s = self.s
        before = s.guest.fresh()
        s.qemu.qmp("stop")
        s.qemu.qmp.wait_for("STOP", 30)
        self.move(paused=True)
        vf = self.here()[0]
        status = self.host.status(vf)
        os.kill(status["supervisor"]["pid"], signal.SIGKILL)
        os.kill(status["worker"]["pid"], signal.SIGKILL)
        s.qemu.qmp("cont")
        s.demand_traffic(before, "with nobody to serve the device")
        self.restore_configuration()
        wait_until(lambda: self.host.status(vf)["worker"]["ready"], 30, "another worker")

    def RL5_guest_rebooted_just_before(self):
        """A reset in the guest's hands, a migration in the middle of its boot; what nobody saw before the reset does not
        matter any more."""
        s = self.s
        moment = time.monotonic()
        s.qemu.qmp("system_reset")
        s.qemu.qmp.wait_for("RESET", 30, since=moment)
        time.sleep(1)
        self.move(booting=True)
        s.wait_for_reboot(moment)
        self.move()
