"""Pictures as an engine's fake sees them: what a picture becomes in a prompt, and what its tokens
stand for, so that an answer shows whether the right picture was there.

A row of a picture is a token of its own here, made of the picture's content: EFFECTIVE and more.
"""

import base64
import hashlib
import json
import struct
import zlib

IMAGE, VIDEO = 390, 391  # placeholders
START, END = 387, 388
EFFECTIVE = 10_000_000
PATCH = 14


def unfiltered(kind, line, above):
    """A row of a PNG (RFC 2083, 6)."""
    out = bytearray(line)
    for i in range(len(out)):
        left = out[i - 3] if i >= 3 else 0
        corner = above[i - 3] if i >= 3 else 0
        up = above[i]
        guess = left + up - corner
        paeth = min((abs(guess - v), n, v) for n, v in enumerate((left, up, corner)))[2]
        out[i] = (out[i] + (0, left, up, (left + up) // 2, paeth)[kind]) & 255
    return bytes(out)


def unpacked(png):
    """(width, height, RGB) of a PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n", "no PNG"
    at, data, head = 8, b"", None
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length]
        check = struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0]
        assert check == zlib.crc32(kind + body), "a broken PNG"
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            data += body
        at += 12 + length
    width, height = head[:2]
    raw = zlib.decompress(data)
    row = 1 + 3 * width
    lines, above = [], bytes(3 * width)
    for i in range(height):
        line = raw[i * row : (i + 1) * row]
        above = unfiltered(line[0], line[1:], above) if line[0] else line[1:]
        lines.append(above)
    return width, height, b"".join(lines)


def content_digest(width, height, rgb):
    """The name that Stator gives a picture."""
    head = struct.pack("<IIIII", 1, width, height, 1, 0)
    return hashlib.sha256(head + rgb).hexdigest()


class Item:
    def __init__(self, kind, content, grid):
        self.kind, self.content, self.grid = kind, content, grid

    @property
    def rows(self):
        frames, high, wide = self.grid
        return max(1, frames * high * wide // 4)

    @property
    def metadata(self):
        return {f"{self.kind}_grid_thw": self.grid}

    @property
    def placeholder(self):
        return VIDEO if self.kind == "video" else IMAGE


def item_of_url(url):
    head, _, data = url.partition(",")
    if head == "data:video/jpeg;base64":
        frames = [unpacked(base64.b64decode(f)) for f in data.split(",")]
        digest = hashlib.sha256(b"".join(f[2] for f in frames)).hexdigest()
        width, height = frames[0][:2]
        return Item("video", digest, [len(frames), height // PATCH, width // PATCH])
    assert head == "data:image/png;base64", head
    width, height, rgb = unpacked(base64.b64decode(data))
    digest = content_digest(width, height, rgb)
    return Item("image", digest, [1, height // PATCH, width // PATCH])


def items_of(messages):
    """[(uuid, item)] of a chat."""
    out = []
    for message in messages:
        for part in message["content"] if isinstance(message["content"], list) else []:
            kind = part["type"]
            if kind in ("image_url", "video_url"):
                out.append((part.get("uuid"), item_of_url(part[kind]["url"])))
    return out


def kwargs_of(item):
    said = json.dumps({"content": item.content, "grid": item.grid, "kind": item.kind})
    return base64.b64encode(said.encode()).decode()


def rendered(messages):
    """What a render server says of a chat: its items alone, the texts are a few tokens."""
    ids = [385, 307, 198]
    features = {k: {} for k in ("mm_hashes", "mm_placeholders", "kwargs_data", "mm_metadata")}
    for uuid, item in items_of(messages):
        place = {"offset": len(ids) + 1, "length": item.rows}
        said = {
            "mm_hashes": uuid or item.content,
            "mm_placeholders": place,
            "kwargs_data": kwargs_of(item),
            "mm_metadata": base64.b64encode(json.dumps(item.grid).encode()).decode(),
        }
        for name, value in said.items():
            features[name].setdefault(item.kind, []).append(value)
        ids += [START, *[item.placeholder] * item.rows, END]
    return {"token_ids": [*ids, 386, 198], "features": features}


def row(content, i):
    return EFFECTIVE + (int(content[:7], 16) * 4096 + i * 131) % 90_000_000


def effective(ids, placed):
    """Ids with rows in their places. `placed`: (content, offset, length) of each item."""
    out = list(ids)
    for content, offset, length in placed:
        out[offset : offset + length] = [row(content, i) for i in range(length)]
    return out
