"""The peers of `index`: SMG's kv-index 2.0.0 and Dynamo's kv-router 1.6.1 behind one harness in
Rust, built once with cargo, and the corpora that both sides read."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

from peers.llama_server import cache_folder

TRACE = "mooncake_conversation.jsonl"
BUILD_SECONDS = 1800
# name: arguments of `gen` behind the output (ranks, blocks per rank, passes, requests, mode)
CORPORA = {
    "conv_w64": ("64", "16384", "1", "99999", "lru"),
    "conv_w4096": ("4096", "16384", "2", "99999", "lru"),
    "holes_w8": ("8", "16384", "1", "3000", "holes"),
    "holesv_w8": ("8", "16384", "1", "3000", "holesv"),
}


def _given(variable, path, what):
    folder = os.environ.get(variable)
    found = pathlib.Path(folder) / path if folder else None
    if found is None or not found.exists():
        sys.exit(f"${variable} names no folder with {path}: {what}")
    return found


def _cargo():
    for path in (os.environ.get("CARGO"), shutil.which("cargo"), "/usr/bin/cargo"):
        if path and os.path.exists(path):
            return path
    sys.exit("cargo is missing: ./dev setup installs it")


class IndexPeers:
    """Builds what is missing (about four minutes on two cores, once)."""

    def __init__(self):
        source = _given("STATOR_PEERS", "index_peers/idx", "the peers' harness")
        digest = hashlib.sha256()
        for file in sorted([source / "Cargo.toml", *source.glob("src/*.rs")]):
            digest.update(file.name.encode() + file.read_bytes())
        self.folder = cache_folder() / f"index-peers-{digest.hexdigest()[:12]}"
        self.programs = self.folder / "target" / "release"
        if not (self.programs / "idx").is_file():
            shutil.copytree(source, self.folder / "src", dirs_exist_ok=True)
            command = [_cargo(), "build", "--release", "--manifest-path"]
            command.append(str(self.folder / "src" / "Cargo.toml"))
            print("  $", *command, flush=True)
            env = dict(os.environ, CARGO_TARGET_DIR=str(self.folder / "target"))
            subprocess.run(command, check=True, timeout=BUILD_SECONDS, env=env)

    def corpus(self, name):
        path = self.folder / "data" / f"{name}.bin"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            trace = _given("STATOR_DATA", TRACE, "it is part of Mooncake's trace release")
            making = path.with_suffix(".making")
            command = [self.programs / "gen", trace, making, *CORPORA[name]]
            print(f"  making the corpus {name}", flush=True)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
            making.rename(path)
        return path

    def run(self, corpus, mode, peer="smg"):
        """The harness's figures: {"apply": ns, "lookup_p50": us, …}."""
        command = [self.programs / "idx", self.corpus(corpus), peer, mode, "1"]
        env = dict(os.environ, MEASURE_LOCK=str(self.folder / "lock"), MEASURE_NICE="0")
        text = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=300, env=env
        ).stdout
        return _figures(text)

    def hashing(self):
        """{"hash_16": ns per block, …, "append": ns per token} of Dynamo's crates."""
        command = [self.programs / "hashbw"]
        env = dict(os.environ, MEASURE_LOCK=str(self.folder / "lock"))
        figures = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
            for line in process.stdout:
                match = re.match(r"dynamo block\+seq hashes bs=(\d+) .* ([\d.]+) ns/block", line)
                if match:
                    figures[f"hash_{match[1]}"] = float(match[2])
                if match := re.match(r".*TokenBlockSequence::append +([\d.]+) ns/token", line):
                    figures["append"] = float(match[1])
                    break  # what follows measures the machine
            process.kill()
        return figures


def _figures(text):
    figures = {}
    if match := re.search(r"ns/block-op\(cpu\)=([\d.]+)", text):
        figures["apply"] = float(match[1])
    if match := re.search(r"load rep0: writer ([\d.]+)M", text):
        figures["load_rate"] = float(match[1])
    kinds = {"lookup": "idle-lookup", "load_lookup": "load rep", "remove_rank": "remove-worker"}
    for key, label in kinds.items():
        if match := re.search(rf"{label}.*? p50=([\d.]+) p99=([\d.]+) .*?max=([\d.]+)", text):
            for name, value in zip(("p50", "p99", "max"), match.groups()):
                figures[f"{key}_{name}"] = float(value)
    if match := re.search(r"heap_bytes/entry=([\d.]+) rss_bytes/entry=([\d.]+)", text):
        figures["bytes_per_entry"] = float(match[2])
    if match := re.search(r"after removing every worker: heap=[-\d.]+MB rss=([-\d.]+)MB", text):
        figures["left"] = float(match[1])
    wrong = re.findall(r"mismatching=(\d+)", text)
    figures["wrong"] = sum(int(n) for n in wrong)
    return figures
