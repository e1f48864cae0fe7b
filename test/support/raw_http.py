"""HTTP as bytes on a socket, for what no polite client would send."""

import dataclasses
import json
import socket


@dataclasses.dataclass
class RawResponse:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


class RawConnection:
    """One TCP connection. Every wait is bounded by `timeout`."""

    def __init__(self, server, timeout=30):
        self.socket = socket.create_connection((server.host, server.port), timeout=timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def try_send(self, data):
        """Sends as much as the server takes; True if it took all of it."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _fill(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def read_until(self, mark):
        """Bytes up to and with `mark`; EOFError where the connection ends before it."""
        while mark not in self.buffer:
            if not self._fill():
                raise EOFError(f"connection ended before {mark!r}; got {self.buffer[:500]!r}")
        at = self.buffer.index(mark) + len(mark)
        out, self.buffer = self.buffer[:at], self.buffer[at:]
        return out

    def _read_exactly(self, count):
        while len(self.buffer) < count:
            if not self._fill():
                raise EOFError(f"connection ended {count - len(self.buffer)} bytes early")
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def read_head(self):
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        lines = head.split("\r\n")
        version, status = lines[0].split(" ")[:2]
        assert version.startswith("HTTP/1."), lines[0]
        pairs = (line.split(":", 1) for line in lines[1:] if line)
        return int(status), {name.lower(): value.strip() for name, value in pairs}

    def read_response(self):
        """One whole response, by Content-Length or chunked."""
        status, headers = self.read_head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.read_until(b"\r\n").strip(), 16):
                body += self._read_exactly(size)
                assert self.read_until(b"\r\n") == b"\r\n"
            assert self.read_until(b"\r\n") == b"\r\n"
        else:
            body = self._read_exactly(int(headers["content-length"]))
        return RawResponse(status, headers, body)

    def at_end(self):
        """True when the server closes (or resets) without another byte; waits for it."""
        return not self.buffer and not self._fill()


def post(path, payload, headers=()):
    """The bytes of a JSON POST; `payload` may be bytes that are not JSON."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path, headers=()):
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
