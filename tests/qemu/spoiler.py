# SPDX-License-Identifier: Apache-2.0
"""Stands between two QEMUs and spoils the device's state on its way (core/docs/stream-format.md): one bit of the first
section's payload, or the connection ends there.

    with Spoiler(migration, cut=False) as spoiler:
        migration.begin(); migration.finish()
    assert spoiler.done

Threads of its own. Errors of the network are the ends of connections.
"""
import os
import socket
import threading

from qmp import connect

FIRST_SECTION = b"SECT" + (1).to_bytes(4, "little")
PAYLOAD = 84 - len(FIRST_SECTION)  # bytes of the record from there to its payload


class Spoiler:
    def __init__(self, migration, cut):
        self.done = False
        self._migration, self._cut = migration, cut
        migration.from_path = f"{migration.path}.spoiled"
        if os.path.exists(migration.from_path):
            os.unlink(migration.from_path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(migration.from_path)
        self._listener.listen()
        self._peers = []

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._end()
        self._listener.close()

    def _serve(self):
        try:
            source = self._listener.accept()[0]
            destination = connect(self._migration.path, 30)
        except OSError:  # the block was left before
            return
        self._peers = [source, destination]
        threading.Thread(target=self._pass_on, args=(destination, source, lambda data: data), daemon=True).start()
        self._pass_on(source, destination, self._spoil())

    def _pass_on(self, giver, taker, change):
        try:
            while data := giver.recv(1 << 16):
                taker.sendall(change(data))
                if self.done and self._cut:
                    break
        except OSError:
            pass
        self._end()

    def _end(self):
        for peer in self._peers:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:  # its QEMU has gone
                pass

    def _spoil(self):
        """What is done with each piece. Nothing is held back, for either side may wait for it."""
        tail, left = b"", None  # bytes before this piece; bytes from its begin to the one that is spoiled

        def change(data):
            nonlocal tail, left
            if self.done:
                return data
            if left is None:
                seen = tail + data
                at = seen.find(FIRST_SECTION)
                if at >= 0:
                    left = at + len(FIRST_SECTION) + PAYLOAD - len(tail)
                tail = seen[-(len(FIRST_SECTION) - 1):]
            if left is None or left >= len(data):
                left = None if left is None else left - len(data)
                return data
            self.done = True
            return data[:left] + (b"" if self._cut else bytes([data[left] ^ 1]) + data[left + 1:])
        return change
