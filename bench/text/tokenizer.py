"""Encoding through our interface against the fastest crate called from Rust."""

import pathlib
import tempfile

import parts
from harness.results import paired_row

MODELS = ("llama3_1", "qwen3")
PROMPTS = {"1k": 4_000, "8k": 32_000, "60k": 240_000}  # tokens: bytes of English
SIZE = 1_200_000
PEER = "fastokens 0.3.5 called from Rust, one thread"


def run(args):
    size = SIZE // 4 if args.quick else SIZE
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for language, path in parts.texts(pathlib.Path(folder), size):
            for model in MODELS:
                for label, prompt in PROMPTS.items():
                    if label != "8k" and language != "English":
                        continue
                    rows += compare(args, model, language, label, path, prompt)
    return rows


def compare(args, model, language, label, path, prompt):
    file = args.tokenizers / model / "tokenizer.json"
    mine, theirs = parts.by_turns(args, "encode", file, path, prompt)
    rows = []
    for state in ("warm", "cold"):
        ours, peer = ([r["bytes"] / r[state] / 1e6 for r in side] for side in (mine, theirs))
        rows.append(paired_row(f"{model}, {language}, prompts of {label} tokens, {state}",
                               "MB/s of CPU", ours, peer, PEER, ">= 0.9",
                               f"engine: {mine[0]['engine']}"))
    return rows
