"""Tokens to text, one at a time, with stop strings."""

import pathlib
import tempfile

import parts
from harness.results import Row, paired_row

PEER = "tokenizers 1.0.0-rc.3, DecodeStream, without stop strings"


def run(args):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for language, path in parts.texts(pathlib.Path(folder), 300_000):
            for model in ("llama3_1", "qwen3"):
                file = args.tokenizers / model / "tokenizer.json"
                mine, theirs = parts.by_turns(args, "decode", file, path)
                ours = [r["seconds"] / r["tokens"] * 1e9 for r in mine]
                plain = [r["plain_seconds"] / r["tokens"] * 1e9 for r in mine]
                peer = [r["seconds"] / r["tokens"] * 1e9 for r in theirs]
                name = f"{model}, {language}: a token to text"
                parsed = [r["parsed_seconds"] / r["tokens"] * 1e9 for r in mine]
                rows.append(Row(f"{name}, four stop strings", parts.median(ours), "ns CPU"))
                rows.append(
                    Row(f"{name}, four stop strings, calls and thinking looked for",
                        parts.median(parsed), "ns CPU", target="<= 60")
                )
                rows.append(paired_row(f"{name}, no stop string", "ns CPU", plain, peer, PEER))
    return rows
