"""Pictures and clips made by hand, so that tests need neither packages nor programs for them.

PNG pictures of any content; clips as Motion JPEG in AVI, whose frames are squares of one colour
each: a JPEG of nothing but mean values is short to write.
"""

import base64
import struct
import zlib

SQUARE = 8  # pixels of a side: a JPEG's block
RATE = 4  # frames a second


def data_url(content, kind="image/png"):
    return f"data:{kind};base64," + base64.b64encode(content).decode()


def png(width, height, pixel):
    """RGB; `pixel(x, y)` gives each of them."""
    rows = b"".join(
        b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height)
    )

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


class _Bits:
    """Bits as a JPEG's scan has them: a zero behind each byte of ones."""

    def __init__(self):
        self.bytes = bytearray()
        self.held = 0
        self.count = 0

    def put(self, value, count):
        for i in reversed(range(count)):
            self.held = self.held << 1 | (value >> i & 1)
            self.count += 1
            if self.count == 8:
                self.bytes += bytes([self.held]) + (b"\0" if self.held == 0xFF else b"")
                self.held = self.count = 0

    def end(self):
        self.put((1 << 7) - 1, -self.count % 8)
        return bytes(self.bytes)


def _ycbcr(red, green, blue):
    return (
        0.299 * red + 0.587 * green + 0.114 * blue,
        128 - 0.168736 * red - 0.331264 * green + 0.5 * blue,
        128 + 0.5 * red - 0.418688 * green - 0.081312 * blue,
    )


def jpeg(columns, rows, square):
    """A picture of columns × rows squares of 8 × 8 pixels; `square(x, y)` gives each one's RGB."""
    bits = _Bits()
    before = [0, 0, 0]
    for y in range(rows):
        for x in range(columns):
            for i, value in enumerate(_ycbcr(*square(x, y))):
                mean = round((min(max(value, 0), 255) - 128) * SQUARE)
                difference, before[i] = mean - before[i], mean
                size = abs(difference).bit_length()
                bits.put(size, 4)  # each code of the DC table is its size
                bits.put(difference if difference >= 0 else difference + (1 << size) - 1, size)
                bits.put(0, 1)  # no more of this block
    components = b"".join(bytes([i + 1, 0x11, 0]) for i in range(3))
    in_scan = b"".join(bytes([i + 1, 0]) for i in range(3))
    segments = [
        (0xDB, bytes([0]) + bytes([1] * 64)),
        (0xC0, struct.pack(">BHHB", 8, rows * SQUARE, columns * SQUARE, 3) + components),
        (0xC4, bytes([0x00]) + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12))),
        (0xC4, bytes([0x10]) + bytes([1] + [0] * 15) + bytes([0])),
        (0xDA, bytes([3]) + in_scan + bytes([0, 63, 0])),
    ]
    head = b"".join(
        bytes([0xFF, mark]) + struct.pack(">H", len(data) + 2) + data for mark, data in segments
    )
    return b"\xff\xd8" + head + bits.end() + b"\xff\xd9"


def _chunk(name, data):
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name, *chunks):
    return _chunk(b"LIST", name + b"".join(chunks))


def _avi(width, height, frames, stream, chunks, flags):
    head = struct.pack("<14I", 1_000_000 // RATE, 0, 0, flags, frames, 0, 1, 0, width, height, *[0] * 4)
    index, at = b"", 4
    for name, data in chunks:
        index += name + struct.pack("<3I", 0x10, at, len(data))
        at += 8 + len(data) + len(data) % 2
    movie = _list(b"movi", *(_chunk(name, data) for name, data in chunks))
    return _chunk(
        b"RIFF",
        b"AVI "
        + _list(b"hdrl", _chunk(b"avih", head), _list(b"strl", *stream))
        + movie
        + _chunk(b"idx1", index),
    )


def avi(jpegs, columns, rows, rate=RATE, codec=b"MJPG"):
    """A clip of these pictures, `rate` of them a second; its size is theirs, or what it says."""
    width, height = columns * SQUARE, rows * SQUARE
    largest = max(map(len, jpegs), default=0)
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H",
        *(b"vids", codec, 0, 0, 0, 0, 1, rate, 0, len(jpegs), largest, 0xFFFFFFFF, 0),
        *(0, 0, width, height),
    )
    form = struct.pack(
        "<IiiHH4sIiiII", 40, width, height, 1, 24, codec, width * height * 3, 0, 0, 0, 0
    )
    streams = [_chunk(b"strh", stream), _chunk(b"strf", form)]
    return _avi(width, height, len(jpegs), streams, [(b"00dc", j) for j in jpegs], 0x10)


def clip(colours, columns=12, rows=8, **options):
    """A clip whose frames are of one colour each."""
    return avi([jpeg(columns, rows, lambda x, y, c=c: c) for c in colours], columns, rows, **options)


def sound_only(seconds=1):
    """An AVI file without a picture."""
    rate = 8000
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H",
        *(b"auds", b"\0\0\0\0", 0, 0, 0, 0, 1, rate, 0, rate * seconds, rate, 0, 1),
        *(0, 0, 0, 0),
    )
    form = struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8)
    streams = [_chunk(b"strh", stream), _chunk(b"strf", form)]
    chunks = [(b"01wb", bytes([128]) * rate)] * seconds
    return _avi(0, 0, 0, streams, chunks, 0x10)
