"""Drives `tools/tokenize` and names the published tokenizers it is tested with."""

import os
import pathlib
import struct
import subprocess

REFUSED = 0xFFFFFFFF


def real_folder():
    """The folder with NAME/tokenizer.json and python/, or None."""
    folder = os.environ.get("STATOR_TOKENIZERS")
    return pathlib.Path(folder) if folder else None


def real_names():
    folder = real_folder()
    return sorted(p.parent.name for p in folder.glob("*/tokenizer.json")) if folder else []


def program():
    build = os.environ.get("STATOR_BUILD")
    if build is None:
        build = pathlib.Path(os.environ["STATOR_BIN"]).resolve().parents[2]
    return pathlib.Path(build) / "tools" / "tokenize"


class Refused(Exception):
    """What the tokenizer said instead of an answer."""


class TokenizeProcess:
    def __init__(self, file):
        self._process = subprocess.Popen(
            [program(), file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def encode(self, text, how="p"):
        """`how`: "p" special tokens parsed, "t" as text, "m" goes on, "b" with what comes first."""
        answer = self._ask(how, text.encode())
        return list(struct.unpack(f"<{len(answer) // 4}I", answer))

    def decode(self, ids):
        return self._ask("d", struct.pack(f"<{len(ids)}I", *ids)).decode()

    def _ask(self, letter, body):
        self._process.stdin.write(letter.encode() + struct.pack("<I", len(body)) + body)
        self._process.stdin.flush()
        size = self._length()
        if size == REFUSED:
            raise Refused(self._read(self._length()).decode())
        return self._read(size)

    def _length(self):
        return struct.unpack("<I", self._read(4))[0]

    def _read(self, size):
        data = self._process.stdout.read(size)
        if len(data) != size:
            raise AssertionError(f"tokenize ended with status {self._process.wait(timeout=10)}")
        return data
