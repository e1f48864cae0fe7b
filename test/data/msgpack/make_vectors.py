#!/usr/bin/env python3
"""Writes vectors.json: MessagePack as PyPI's msgpack packs and reads it.

    pip install msgpack==1.2.4 && python3 make_vectors.py

stator/codec's tests hold our writer and reader to this file. Each document is
  {"json": its value as our printer shows it, "hex": packed, "shortest": whether our writer must give the same bytes}
and each refusal {"hex": bytes that msgpack refuses, "why": the name of its exception}.
"""
import json
import pathlib
import random

import msgpack

HERE = pathlib.Path(__file__).parent
SEED = 20250101
RANDOM_DOCUMENTS = 250
RANDOM_REFUSALS = 200
LIMITS = dict(raw=False, strict_map_key=False)


def shown(value):
    """The value as append_msgpack_as_json shows it, as a value for json.dumps."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, msgpack.Timestamp):
        return f"<extension -1, {len(value.to_bytes())} bytes>"
    if isinstance(value, msgpack.ExtType):
        return f"<extension {value.code}, {len(value.data)} bytes>"
    if isinstance(value, float):
        if value != value:
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, list):
        return [shown(v) for v in value]
    if isinstance(value, dict):
        return {shown_key(k): shown(v) for k, v in value.items()}
    return value


def shown_key(key):
    text = shown(key)
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, separators=(",", ":"))


def document(value, **options):
    return {"json": json.dumps(shown(value), ensure_ascii=False, separators=(",", ":")),
            "hex": msgpack.packb(value, **options).hex(), "shortest": not options}


def edges():
    numbers = set()
    for bits in (5, 7, 8, 15, 16, 31, 32, 53, 63, 64):
        for off in (-1, 0, 1):
            numbers.update((2 ** bits + off, -(2 ** bits) + off))
    yield from sorted(n for n in numbers if -(2 ** 63) <= n < 2 ** 64)
    yield from (None, True, False, 0.0, -0.0, 0.1, 1e300, -1.5, 5e-324, float("inf"), float("-inf"), float("nan"))
    for n in (0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536):
        yield "x" * n
        yield b"\xff" * n
        if n <= 256:
            yield list(range(n))
            yield {f"k{i}": i for i in range(n)}
            yield msgpack.ExtType(5, b"e" * n)
    yield [0] * 65536
    yield from ("Grüezi 👋🏽", "\u0000\u001f\"\\", {1: "int key", -1: None}, {b"ab": 1}, {None: [], True: {}})
    yield from (msgpack.ExtType(0, b""), msgpack.ExtType(127, b"12"), msgpack.Timestamp(1, 5), msgpack.Timestamp(2 ** 40))
    deep = 1
    for _ in range(32):
        deep = [deep]
    yield deep


def anything(rng, depth=0):
    kind = rng.randrange(10 if depth < 4 else 7)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.randrange(-(2 ** 63), 2 ** 64) >> rng.randrange(64)
    if kind == 2:
        return rng.choice([rng.random(), rng.uniform(-1e9, 1e9), float(rng.randrange(1000))])
    if kind in (3, 4):
        return "".join(rng.choice("abc\n\"é日👋") for _ in range(rng.randrange(40)))
    if kind == 5:
        return rng.randbytes(rng.randrange(40))
    if kind == 6:
        return msgpack.ExtType(rng.randrange(128), rng.randbytes(rng.randrange(20)))
    if kind == 7:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(20))]
    return {"".join(rng.choice("klm") for _ in range(rng.randrange(1, 8))): anything(rng, depth + 1)
            for _ in range(rng.randrange(20))}


def refusals(rng):
    """Random bytes, and documents with a byte changed, that msgpack refuses."""
    out = [{"hex": "c1", "why": "FormatError"}, {"hex": "", "why": "ValueError"}, {"hex": "a1ff", "why": "UnicodeDecodeError"}]
    while len(out) < RANDOM_REFUSALS:
        if rng.random() < 0.5:
            bad = rng.randbytes(rng.randrange(1, 12))
        else:
            bad = bytearray(msgpack.packb(anything(rng)))
            bad[rng.randrange(len(bad))] = rng.randrange(256)
            bad = bytes(bad)
        # Keys that Python can't hash and timestamps out of range are no faults of the bytes.
        try:
            msgpack.unpackb(bad, ext_hook=msgpack.ExtType, **LIMITS)
        except (ValueError, msgpack.exceptions.UnpackException) as e:
            if len(bad) < 200 and "imestamp" not in str(e) and type(e).__name__ != "StackError":
                out.append({"hex": bad.hex(), "why": type(e).__name__})
        except TypeError:
            pass
    return out


def main():
    rng = random.Random(SEED)
    documents = [document(v) for v in edges()]
    documents += [document(v, use_single_float=True) for v in (0.5, -2.0, float("inf"))]
    documents += [document(anything(rng)) for _ in range(RANDOM_DOCUMENTS)]
    documents = [d for d in documents if len(d["hex"]) < 2_500]  # the tests make the long ones
    lines = [json.dumps(d, ensure_ascii=False) for d in documents]
    bad = [json.dumps(d) for d in refusals(rng)]
    (HERE / "vectors.json").write_text(
        '{"documents": [\n' + ",\n".join(lines) + '\n],\n"refusals": [\n' + ",\n".join(bad) + "\n]}\n")


if __name__ == "__main__":
    main()
