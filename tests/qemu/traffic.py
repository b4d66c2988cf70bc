# SPDX-License-Identifier: Apache-2.0
"""Traffic with the inner guest from outside of it, through the PF's network interface.

    with Inbound("10.0.2.20") as stream, Probe("10.0.2.20") as probe: ...

Each object has a thread of its own and ends it when its block is left. Errors of the network stand in .problems.
"""
import array
import select
import socket
import struct
import threading
import time

LENGTH = 65521
INBOUND, DATAGRAMS, MULTICAST = 9000, 9001, 9002
GROUP = "239.1.1.1"
TCP_THIN_LINEAR_TIMEOUTS = 16


def pattern():
    """The block of tests/qemu/guest/pattern.hpp."""
    block, x = bytearray(LENGTH), 82576
    for i in range(LENGTH):
        x = (x * 1664525 + 1013904223) & 0xffffffff
        block[i] = x >> 24
    return bytes(block)


class Worker:
    """A thread that calls step() until the block is left."""

    def __init__(self):
        self.problems = []
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended = True
        self._thread.join(10)

    def _run(self):
        try:
            self.begin()
            while not self._ended:
                self.step()
        except OSError as error:
            if not self._ended:
                self.problems.append(f"{type(self).__name__} {self.peer}: {error}")
        self.end()

    def begin(self):
        pass

    def end(self):
        pass


class Inbound(Worker):
    """A TCP stream into the guest, in its VLAN: the gateway of user networking answers whatever it sees of a connection that it
    does not know with a reset, and while the guest changes its address it would see ours. It knows no VLANs."""

    def __init__(self, peer, rate=8192):
        super().__init__()
        self.peer, self.rate, self.full_rate, self.sent = peer, rate, rate, 0
        self._block = pattern() * 2
        self._socket = None

    def begin(self):
        while not self._ended and not self._socket:
            try:
                self._socket = socket.create_connection((self.peer, INBOUND), timeout=5)
            except OSError:  # the guest has not booted yet
                time.sleep(0.5)
        if self._ended:
            return
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Few packets under way, and for those no wait that doubles with each attempt while the guest stands still.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._socket.setsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)
        self._socket.settimeout(0.5)
        self._allowed, self._last = 0.0, time.monotonic()

    def step(self):
        now = time.monotonic()
        self._allowed = min(8192.0, self._allowed + (now - self._last) * self.rate)
        self._last = now
        length = min(2048, int(self._allowed))
        if length < 2048:
            time.sleep(0.05)
            return
        start = self.sent % LENGTH
        try:
            done = self._socket.send(self._block[start:start + length])
        except TimeoutError:  # the guest is not running
            return
        self.sent += done
        self._allowed -= done

    def end(self):
        if self._socket:
            self._socket.close()


class Probe(Worker):
    """Numbered datagrams that the guest sends back. The longest time without an answer is the gap that its peers see."""

    def __init__(self, peer, every=0.1):
        super().__init__()
        self.peer, self.every = peer, every
        self.sent, self.wrong, self.twice = 0, 0, 0
        self.answers = array.array("d")  # times
        self._seen = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._next = 0.0

    def step(self):
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.every
            try:
                self._socket.sendto(struct.pack("<Q", self.sent) + b"hookline", (self.peer, DATAGRAMS))
                self.sent += 1
            except OSError:  # no neighbour answers just now
                pass
        if not select.select([self._socket], [], [], max(0.001, self._next - now))[0]:
            return
        try:
            answer = self._socket.recv(2048)
        except OSError:
            return
        number = struct.unpack_from("<Q", answer)[0] if len(answer) == 16 else None
        if number is None or number >= self.sent or answer[8:] != b"hookline":
            self.wrong += 1
        elif number in self._seen:
            self.twice += 1
        else:
            self._seen.add(number)
            self.answers.append(time.monotonic())

    def end(self):
        self._socket.close()

    def gap(self, begin, end):
        """Longest time without an answer that touches the given one: the answers before and behind it."""
        times = list(self.answers)
        return max(((a, b) for a, b in zip(times, times[1:]) if b >= begin and a <= end), key=lambda gap: gap[1] - gap[0], default=None)


class Multicast(Worker):
    """Datagrams to a group that the guest has joined."""

    def __init__(self, address, every=1.0):
        super().__init__()
        self.peer, self.every, self.sent = GROUP, every, 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))

    def step(self):
        try:
            self._socket.sendto(b"hookline", (GROUP, MULTICAST))
            self.sent += 1
        except OSError:
            pass
        time.sleep(self.every)

    def end(self):
        self._socket.close()


class Echo(Worker):
    """Answers TCP streams on port 7, for interfaces that the machine's gateway does not reach."""

    def __init__(self, address):
        super().__init__()
        self.peer = address
        self._listener = socket.create_server((address, 7))
        self._peers = []

    def step(self):
        ready = select.select([self._listener, *self._peers], [], [], 0.1)[0]
        for peer in ready:
            if peer is self._listener:
                self._peers.append(peer.accept()[0])
                self._peers[-1].settimeout(5)
                continue
            try:
                data = peer.recv(4096)
                if data:
                    peer.sendall(data)
            except OSError:
                data = b""
            if not data:
                self._peers.remove(peer)
                peer.close()

    def end(self):
        for peer in [self._listener, *self._peers]:
            peer.close()
