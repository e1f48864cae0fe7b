"""What the engines' KV events travel in, with the standard library alone: MessagePack, ZeroMQ's
PUB and ROUTER sockets as far as publishers need them, and the files of recorded frames."""

import queue
import socket
import struct
import threading

GREETING = b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\0" + b"NULL".ljust(20, b"\0") + b"\0" * 32
END = b"\xff" * 8
HIGH_WATER = 100_000


def pack(value):
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        head, form = (b"\xcf", ">Q") if value >= 0 else (b"\xd3", ">q")
        return head + struct.pack(form, value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, str):
        data = value.encode()
        return b"\xdb" + struct.pack(">I", len(data)) + data
    if isinstance(value, (list, tuple)):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(pack(v) for v in value)
    items = b"".join(pack(k) + pack(v) for k, v in value.items())
    return b"\xdf" + struct.pack(">I", len(value)) + items


_SIZED = {0xC4: "B", 0xC5: "H", 0xC6: "I", 0xD9: "B", 0xDA: "H", 0xDB: "I"}
_COUNTED = {0xDC: "H", 0xDD: "I", 0xDE: "H", 0xDF: "I"}
_NUMBERS = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq"))
_WORDS = {0xC0: None, 0xC2: False, 0xC3: True}


def unpack(data):
    value, end = _unpack(data, 0)
    assert end == len(data), "bytes behind the value"
    return value


def _number(data, at, letter):
    form = ">" + letter
    return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)


def _unpack(data, at):
    head, at = data[at], at + 1
    if head < 0x80:
        return head, at
    if head >= 0xE0:
        return head - 256, at
    if head in _WORDS:
        return _WORDS[head], at
    if head in _NUMBERS:
        return _number(data, at, _NUMBERS[head])
    if head in _SIZED or 0xA0 <= head < 0xC0:
        size, at = (head & 31, at) if head < 0xC0 else _number(data, at, _SIZED[head])
        raw = data[at : at + size]
        return (raw if 0xC4 <= head <= 0xC6 else raw.decode()), at + size
    count, at = (head & 15, at) if head < 0xA0 else _number(data, at, _COUNTED[head])
    is_map = head < 0x90 or head >= 0xDE
    out = []
    for _ in range(2 * count if is_map else count):
        value, at = _unpack(data, at)
        out.append(value)
    return (dict(zip(out[::2], out[1::2])) if is_map else out), at


def recorded(path):
    """Messages of a file of recorded frames: (is it an answer to a replay, its frames)."""
    data = path.read_bytes()
    assert data[:4] == b"KVF1"
    at, out = 4, []
    while at < len(data):
        _, kind, count = struct.unpack_from("<dBB", data, at)
        at += 10
        frames = []
        for _ in range(count):
            (size,) = struct.unpack_from("<I", data, at)
            frames.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        out.append((kind == 1, frames))
    return out


def message(frames):
    out = b""
    for i, data in enumerate(frames):
        flags = (i + 1 < len(frames)) | (2 if len(data) > 255 else 0)
        size = struct.pack(">Q", len(data)) if len(data) > 255 else bytes([len(data)])
        out += bytes([flags]) + size + data
    return out


def ready(kind):
    name = kind.encode()
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(name)) + name
    return b"\x04" + bytes([len(body)]) + body


def read_message(stream):
    """The next message's frames; commands are left out. None at the end."""
    frames = []
    while head := stream.read(1):
        size = stream.read(8 if head[0] & 2 else 1)
        body = stream.read(int.from_bytes(size, "big"))
        if head[0] & 4:
            continue
        frames.append(body)
        if not head[0] & 1:
            return frames
    return None


class Client:
    """A SUB or DEALER of tests."""

    def __init__(self, endpoint, kind, topic=b""):
        host, port = endpoint.removeprefix("tcp://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.sendall(GREETING + ready(kind))
        self.stream = self.socket.makefile("rb")
        self.stream.read(64)
        if kind == "SUB":
            self.socket.sendall(message([b"\x01" + topic]))

    def send(self, frames):
        self.socket.sendall(message(frames))

    def receive(self):
        return read_message(self.stream)

    def close(self):
        self.stream.close()
        self.socket.close()


class Publisher:
    """A rank's PUB socket, and the ROUTER beside it that repeats what was sent."""

    def __init__(self, topic, steps, replay_topic, ports=(0, 0)):
        self.topic, self.steps, self.replay_topic = topic.encode(), steps, replay_topic
        self.kept, self.number = [], 0
        self.lock = threading.Lock()
        self.subscribers, self.open = [], set()
        self.servers = [self._listen(p, k) for p, k in zip(ports, ("PUB", "ROUTER"))]
        self.ports = [s.getsockname()[1] for s in self.servers]

    def _listen(self, port, kind):
        server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(server, kind), daemon=True).start()
        return server

    def _accept(self, server, kind):
        while True:
            try:
                peer = server.accept()[0]
            except OSError:
                return
            self.open.add(peer)
            threading.Thread(target=self._serve, args=(peer, kind), daemon=True).start()

    def _serve(self, peer, kind):
        mail = queue.Queue(HIGH_WATER)
        try:
            peer.sendall(GREETING)
            stream = peer.makefile("rb")
            stream.read(64)
            peer.sendall(ready(kind))
            while frames := read_message(stream):
                if kind == "ROUTER" and len(frames) == 2 and len(frames[1]) == 8:
                    self._replay(peer, int.from_bytes(frames[1], "big"))
                elif kind == "PUB" and frames[0][:1] == b"\x01":
                    if self.topic.startswith(frames[0][1:]):
                        threading.Thread(target=self._send, args=(peer, mail), daemon=True).start()
                        with self.lock:
                            self.subscribers.append(mail)
        except OSError:
            pass
        finally:
            with self.lock:
                self.subscribers = [m for m in self.subscribers if m is not mail]
            self.open.discard(peer)
            peer.close()

    def _send(self, peer, mail):
        try:
            while True:
                peer.sendall(mail.get())
        except OSError:
            pass

    def _replay(self, peer, first):
        with self.lock:
            kept = [k for k in self.kept if k[0] >= first]
        own = [self.topic] if self.replay_topic else []
        none = [b""] if self.replay_topic else []
        for number, payload in kept:
            peer.sendall(message([b"", *own, struct.pack(">Q", number), payload]))
        peer.sendall(message([b"", *none, END, b""]))

    def publish(self, batch):
        payload = pack(batch)
        with self.lock:
            number = self.number
            self.number += 1
            self.kept = (self.kept + [(number, payload)])[-self.steps :] if self.steps else []
            data = message([self.topic, struct.pack(">Q", number), payload])
            for mail in self.subscribers:
                if not mail.full():
                    mail.put(data)

    def lose(self):
        """A batch that nobody sees: its number is used up."""
        with self.lock:
            self.number += 1

    def close(self):
        """As if its process were gone."""
        for each in [*self.servers, *self.open]:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
