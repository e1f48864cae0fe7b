#!/usr/bin/env python3
"""The prefix index and the hashing of blocks, against the peers' on recorded events.

    STATOR_BUILD=… STATOR_PEERS=… STATOR_DATA=… bench/index/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import results  # noqa: E402
from harness.results import Row, paired_row  # noqa: E402
from peers.index_peers import IndexPeers  # noqa: E402

SMG = "SMG kv-index 2.0.0"
DYNAMO = "dynamo-kv-router 1.6.1"


def ours(args, mode, *corpus):
    """The program's figures; it ends with 1 where an answer was wrong."""
    command = [args.build / "bench" / "bench_index", mode, *corpus]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines or done.returncode not in (0, 1):
        raise RuntimeError(f"bench_index {mode} failed:\n{done.stdout}{done.stderr}")
    return {(f := json.loads(line))["name"]: f["value"] for line in lines}


def by_turns(args, corpus, mode):
    """Both sides, `runs` times; who goes first alternates."""
    path = args.peers.corpus(corpus)
    mine, theirs = [], []
    for turn in range(args.runs):
        sides = [
            lambda: mine.append(ours(args, mode, path)),
            lambda: theirs.append(args.peers.run(corpus, mode)),
        ]
        for side in sides if turn % 2 == 0 else reversed(sides):
            side()
    return mine, theirs


def pair(name, unit, key, mine, theirs, target=None, note=None):
    a, b = [run[key] for run in mine], [run[key] for run in theirs]
    return paired_row(name, unit, a, b, SMG, target, note)


def worst(runs, key):
    return max(run[key] for run in runs)


def apply(args, corpus, label, lookups):
    mine, theirs = by_turns(args, corpus, "apply")
    rows = [pair(f"{label}: apply", "ns CPU per block", "apply", mine, theirs, "<= 0.3")]
    for q in ("p50", "p99"):
        target = "<= 0.4" if lookups else None
        rows.append(pair(f"{label}: lookup {q}", "us", f"lookup_{q}", mine, theirs, target))
    if not lookups:
        value = sorted(run["lookup_p50"] for run in mine)[len(mine) // 2]
        holders = mine[0]["holders"]
        rows.append(
            Row(f"{label}: lookup p50 with {holders:.0f} holders", value, "us", target="<= 2")
        )
    top = sorted(run["lookup_top8_p50"] for run in mine)[len(mine) // 2]
    rows.append(Row(f"{label}: lookup and the 8 deepest, p50", top, "us"))
    gone = worst(mine, "remove_rank_max")
    rows.append(Row(f"{label}: removed rank gone from answers, max", gone, "us", target="<= 50"))
    rows.append(
        pair(f"{label}: memory of a removed rank freed, p50", "us", "free_rank_p50", mine,
             [{"free_rank_p50": run["remove_rank_p50"]} for run in theirs],
             note="the peer's: removed, in one go")
    )
    rows.append(Row(f"{label}: wrong answers", worst(mine, "wrong"), "of 1500", target="<= 0"))
    return rows


def small_fleet(args):
    return apply(args, "conv_w64", "64 ranks", True)


def large_fleet(args):
    return apply(args, "conv_w4096", "4,096 ranks", False)


def load(args):
    mine, theirs = by_turns(args, "conv_w64", "load")
    label = "64 ranks, beside a writer"
    rows = [
        pair(f"{label}: lookup p50", "us", "load_lookup_p50", mine, theirs),
        pair(f"{label}: lookup p99", "us", "load_lookup_p99", mine, theirs, "<= 0.4"),
        pair(f"{label}: the writer", "M blocks/s", "load_rate", mine, theirs),
        Row(f"{label}: wrong answers after it", worst(mine, "wrong"), "of 1500", target="<= 0"),
    ]
    return rows


def memory(args):
    path = args.peers.corpus("conv_w64")
    run, peer = ours(args, "mem", path), args.peers.run("conv_w64", "mem")
    bytes_row = Row("64 ranks: RSS per (rank, block)", run["bytes_per_entry"], "B", target="<= 20")
    ratio = paired_row("64 ranks: RSS per (rank, block), ratio", "B", [run["bytes_per_entry"]],
                       [peer["bytes_per_entry"]], SMG)
    left = Row("64 ranks: RSS left when all ranks are gone", run["left"], "MB", target="<= 2",
               note=f"the peer: {peer['left']:.1f} MB")
    off = abs(run["said_over_rss"] - 1)
    said = Row("memory_bytes() off RSS", off * 100, "%", target="<= 10")
    return [bytes_row, ratio, left, said]


def holes(args):
    rows = []
    for name in ("holes_w8", "holesv_w8"):
        run = ours(args, "check", args.peers.corpus(name))
        rows.append(Row(f"{name}: wrong answers", run["wrong"], "answers", target="<= 0",
                        note=f"of {run['checked']:.0f}"))
    return rows


def hashing(args):
    runs = [(ours(args, "hash"), args.peers.hashing()) for _ in range(args.runs)]
    rows = []
    for size, target in ((16, 7), (32, None), (64, 12), (128, None), (512, None)):
        key = f"hash_{size}"
        name = f"block and sequence hash, {size} tokens"
        mine = [a[key] for a, _ in runs]
        value = sorted(mine)[len(mine) // 2]
        if target is not None:
            rows.append(Row(name, value, "ns CPU per block", target=f"<= {target}"))
        theirs = [b[key] for _, b in runs]
        rows.append(paired_row(f"{name}, ratio", "ns CPU per block", mine, theirs, DYNAMO))
    grow = [a["grow_16"] for a, _ in runs]
    rows.append(Row("a sequence grows by 16 tokens", sorted(grow)[len(grow) // 2],
                    "ns CPU per block", target="<= 10"))
    rows.append(paired_row("a sequence grows by 16 tokens, ratio", "ns CPU per block", grow,
                           [b["append"] * 16 for _, b in runs], "dynamo-tokens 1.6.1"))
    return rows


PARTS = {
    "holes": holes,
    "small_fleet": small_fleet,
    "load": load,
    "memory": memory,
    "large_fleet": large_fleet,
    "hashing": hashing,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once: does it run at all")
    parser.add_argument("--runs", type=int, default=5, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="writes no result by itself")
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/index.json")
    args = parser.parse_args()
    if args.quick:
        args.runs = 1
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "index.json"
    if "STATOR_BUILD" not in os.environ:
        parser.error("STATOR_BUILD is not set: give the folder of the release build")
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
    return args


def main():
    args = arguments()
    args.peers = IndexPeers()
    loads, rows = [], []
    for name in args.only or PARTS:
        loads.append(round(os.getloadavg()[0], 1))
        print(f"{name} (load average {loads[-1]}):", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    if args.output is not None:
        about = {
            "runs": args.runs,
            "corpora": "Mooncake's conversation trace as KV events of blocks of 16 tokens",
            "lookups": "by sequence hashes (ours), by block hashes (the peer)",
            "load_average_before_each_part": loads,
        }
        results.write(args.output, " ".join(["./dev bench index", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
