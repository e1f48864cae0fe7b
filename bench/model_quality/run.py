#!/usr/bin/env python3
"""What re-quantising the default model costs in quality and gains in speed, against its original weights.

    STATOR_BUILD=build/release bench/model_quality/run.py

`./dev bench model_quality` builds the tools, fetches the model and runs this. One thread; speeds are per CPU second, so
that other work on the machine hardly shows. docs/adr/0004 decides by these numbers.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent)]

from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402

TYPES = ["q4_0", "q8_0", "q4_k_m"]
SPEED_RUNS = 5
TEXT = ROOT / "test" / "data" / "english.txt"
SPEEDS = {
    "prefill_512": "prefill, 512 tokens",
    "decode_1": "decoding, 1 sequence",
    "decode_8": "decoding, 8 sequences",
}


def tool(name):
    path = pathlib.Path(os.environ.get("STATOR_BUILD", ROOT / "build" / "release")) / "tools" / name
    if not path.is_file():
        sys.exit(f"{path} is missing: build it, or run ./dev bench model_quality")
    return str(path)


def run_json(*command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def speeds(models):
    """{model: {measure: [values]}}, by turns, so that slow drifts of the machine hit all alike."""
    out = {model: {measure: [] for measure in SPEEDS} for model in models}
    for _ in range(SPEED_RUNS):
        for model in models:
            for measure, value in run_json(
                tool("model_quality"), "speed", model, str(TEXT)
            ).items():
                out[model][measure].append(value)
    return out


def rows_of(kind, candidate, original, measured):
    score = run_json(tool("model_quality"), "score", original, candidate, str(TEXT))
    peer = "original Q4_1"
    rows = [
        Row(
            f"{kind}: size",
            os.path.getsize(candidate) / 1e6,
            "MB",
            peer,
            os.path.getsize(original) / 1e6,
        ),
        Row(
            f"{kind}: perplexity",
            score["perplexity_candidate"],
            "per token",
            peer,
            score["perplexity_reference"],
            target="<= 1.02",
        ),
        Row(f"{kind}: same likeliest token", score["top1_agreement"], "share", target=">= 0.95"),
        Row(
            f"{kind}: KL divergence from the original",
            score["kl_divergence"],
            "nats per token",
            target="<= 0.02",
        ),
    ]
    for measure, name in SPEEDS.items():
        ours, theirs = measured[candidate][measure], measured[original][measure]
        rows.append(results.paired_row(f"{kind}: {name}", "tokens per CPU s", ours, theirs, peer))
    for row in rows:
        if row.peer_value is not None and row.ratio is None:
            row.ratio = row.value / row.peer_value
    return rows, score["tokens"]


def main():
    original = os.environ.get("STATOR_MODEL")
    if not original:
        sys.exit("STATOR_MODEL is not set: give the path of the GGUF model")
    with tempfile.TemporaryDirectory(prefix="stator-model-quality-") as folder:
        candidates = {kind: os.path.join(folder, f"{kind}.gguf") for kind in TYPES}
        for kind, path in candidates.items():
            subprocess.run([tool("convert_gguf"), original, path, kind], check=True)
        measured = speeds([original, *candidates.values()])
        rows, tokens = [], 0
        for kind, path in candidates.items():
            more, tokens = rows_of(kind, path, original, measured)
            rows += more
    print(results.table(rows))
    about = {
        "text": f"test/data/english.txt, {tokens} tokens, windows of 512",
        "model": pathlib.Path(original).name,
        "threads": 1,
        "speed": f"medians of {SPEED_RUNS} runs by turns",
        "original": {m: round(statistics.median(v), 1) for m, v in measured[original].items()},
        "instruction_set": instruction_set(),
    }
    results.write(results.RESULTS / "model_quality.json", "./dev bench model_quality", rows, about)


def instruction_set():
    """Which of the extensions that decide ggml's kernels this CPU has: the speeds depend on them."""
    flags = set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags = set(line.split())
            break
    return [
        f
        for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")
        if f in flags
    ]


if __name__ == "__main__":
    main()
