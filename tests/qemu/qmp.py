# SPDX-License-Identifier: Apache-2.0
"""QEMU's machine protocol over a UNIX socket. Every wait has a limit.

    qmp = Qmp("/run/x/source.qmp", limit=60)
    qmp("migrate", uri="unix:/run/x/m")
    qmp.wait_for("STOP", limit=30)

Errors: QmpError, QEMU's own text in it; Timeout.
"""
import json
import os
import socket
import threading
import time


class Timeout(Exception):
    """Something did not happen within its limit."""


class QmpError(Exception):
    """QEMU's answer to a command was an error, or QEMU is gone."""


def wait_until(condition, limit, what, step=0.05):
    """Returns the condition's first true value."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise Timeout(f"{what} (limit {limit:.0f} s)")
        time.sleep(step)


def wait_for_news(changed, condition, limit, what, check):
    """The same for a condition whose changes are told; what() and check() are called meanwhile: what was waited for, and whether
    there is still something to wait for."""
    end = time.monotonic() + limit
    with changed:
        while not (value := condition()):
            check()
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(f"{what()} (limit {limit:.0f} s)")
            changed.wait(left)
        return value


def connect(path, limit):
    """A UNIX socket that somebody is about to listen on."""
    end = time.monotonic() + limit
    while True:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(path)
            return peer
        except OSError as error:
            peer.close()
            if time.monotonic() >= end:
                raise Timeout(f"nobody listens on {os.path.basename(path)} ({error}, limit {limit:.0f} s)") from error
            time.sleep(0.05)


class Qmp:
    def __init__(self, path, limit=60):
        self.name = os.path.basename(path)
        self.events = []  # (time, event)
        self._answers = {}
        self._last = 0
        self._gone = False
        self._changed = threading.Condition()
        self._lock = threading.Lock()
        self._socket = connect(path, limit)
        self._greeted = False
        threading.Thread(target=self._read, daemon=True).start()
        self._wait(lambda: self._greeted, limit, "greeting")
        self("qmp_capabilities")

    def __call__(self, command, limit=60, **arguments):
        """Runs a command and returns its answer. An underscore in an argument's name stands for a dash."""
        with self._lock:
            self._last += 1
            number = self._last
        text = {"execute": command, "id": number}
        if arguments:
            text["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            self._socket.sendall(json.dumps(text).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{self.name}: {command}: {error}") from error
        answer = self._wait(lambda: self._answers.pop(number, None), limit, f"answer to {command}")
        if "error" in answer:
            raise QmpError(f"{self.name}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def wait_for(self, event, limit, since=0.0):
        """The first event of that name behind a time."""
        def find():
            return next((e for t, e in self.events if e["event"] == event and t >= since), None)
        return self._wait(find, limit, f"event {event}")

    def has(self, event, since=0.0):
        with self._changed:
            return any(e["event"] == event and t >= since for t, e in self.events)

    def time_of(self, event, since=0.0):
        """When it was heard first behind a time, or None."""
        with self._changed:
            return next((t for t, e in self.events if e["event"] == event and t >= since), None)

    @property
    def gone(self):
        return self._gone

    def _wait(self, condition, limit, what):
        def check():
            if self._gone:
                raise QmpError(f"{self.name}: QEMU ended while waiting for: {what}")
        return wait_for_news(self._changed, condition, limit, lambda: f"{self.name}: {what}", check)

    def _read(self):
        try:
            with self._socket.makefile() as lines:
                for line in lines:
                    self._hear(json.loads(line))
        except (OSError, ValueError):
            pass
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _hear(self, message):
        with self._changed:
            if "QMP" in message:
                self._greeted = True
            elif "event" in message:
                self.events.append((time.monotonic(), message))
            else:
                self._answers[message.get("id")] = message
            self._changed.notify_all()
