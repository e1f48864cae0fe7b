#!/usr/bin/env python3
"""Whole requests, prompts and pictures always on workers of their own, or as the router decides.

    STATOR_BIN=… STATOR_DATA=… bench/epd/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402
from stator_process import binary  # noqa: E402

TRACE = "mooncake_conversation.jsonl"
PRESET = "llama-3.1-8b-fp8-h100"
DEVICES = 8
GB_PER_S = 50  # of a handoff: a network card of 400 Gbit/s
TOLERATED = 0.98  # of the better one of the fixed ways


def trace():
    folder = os.environ.get("STATOR_DATA")
    path = pathlib.Path(folder) / TRACE if folder else None
    if path is None or not path.is_file():
        sys.exit(
            f"$STATOR_DATA names no folder with {TRACE}; it is part of Mooncake's trace release"
        )
    return path


def group(name, role, workers):
    return {
        "name": name,
        "role": role,
        "workers": workers,
        "preset": PRESET,
        "handoff_gb_per_s": GB_PER_S,
    }


def apart(prefill, encode=0):
    """Workers for each part, as many devices in all."""
    groups = [
        group("encoders", "encode", encode),
        group("prefillers", "prefill", prefill),
        group("decoders", "decode", DEVICES - prefill - encode),
    ]
    return [g for g in groups if g["workers"]]


def simulate(scenario, seed):
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        path = pathlib.Path(folder) / "scenario.yaml"
        path.write_text(json.dumps(scenario))  # JSON is YAML
        command = [binary(), "sim", str(path), "--json", "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        sys.exit(f"stator sim ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def fact(report, key):
    return next((f["value"] for f in report["facts"] if f["key"] == key), "")


def border(reports):
    """From how many tokens on conditional gives prompts a worker of their own; how many it did."""
    sizes, split, all_ = [], 0, 0
    for report in reports:
        found = re.match(r"(\d+) of (\d+) .* from (\d+) tokens", fact(report, "disaggregation"))
        if found:
            split, all_ = split + int(found[1]), all_ + int(found[2])
            sizes.append(int(found[3]))
    return sorted(sizes)[len(sizes) // 2] if sizes else 0, split / max(1, all_)


def compare(args, name, workload, slo, ways):
    """Rows of one workload at one load: `ways` are fleets by name, each with how it splits."""
    seeds = range(1, 2 if args.quick else args.seeds + 1)
    jobs = {}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for way, (fleet, disaggregation) in ways.items():
            scenario = {
                "name": f"{name}: {way}",
                "fleet": fleet,
                "router": {"disaggregation": disaggregation},
                "workload": workload,
                "slo": slo,
            }
            jobs[way] = [pool.submit(simulate, scenario, seed) for seed in seeds]
    reports = {way: [job.result() for job in of] for way, of in jobs.items()}
    goodput = {
        way: sum(r["goodput"] for r in of) / len(of) for way, of in reports.items()
    }
    fixed = {way: value for way, value in goodput.items() if ways[way][1] != "conditional"}
    best = max(fixed, key=fixed.get)
    rows = []
    for way, of in reports.items():
        good = sum(r["good_share"] for r in of) / len(of) * 100
        note = (
            f"{good:.1f} % good; TTFT p90 {middle(of, 'ttft_ms', 'p90'):.0f} ms, "
            f"ITL p90 {middle(of, 'itl_ms', 'p90'):.1f} ms"
        )
        if ways[way][1] != "conditional":
            rows.append(Row(f"{name}: {way}", goodput[way], "good req/s", note=note))
            continue
        size, share = border(of)
        note += f"; {share * 100:.0f} % split, from {size} tokens on"
        rows.append(
            Row(
                f"{name}: {way}",
                goodput[way],
                "good req/s",
                best,
                fixed[best],
                goodput[way] / fixed[best] if fixed[best] else None,
                f">= {TOLERATED}",
                note=note,
            )
        )
        rows.append(Row(f"{name}: break-even prompt", size, "tokens"))
    return rows


def middle(reports, figure, which):
    values = sorted(r[figure][which] for r in reports)
    return values[len(values) // 2]


def conversation(args):
    """A trace of long prompts at several speeds, with a strict and a lenient limit on ITL."""
    rows = []
    ways = {
        "aggregated": ([group("workers", "aggregated", DEVICES)], "never"),
        "3 prefill, 5 decode, always": (apart(3), "always"),
        "4 prefill, 4 decode, always": (apart(4), "always"),
        "3 prefill, 5 decode, conditional": (apart(3), "conditional"),
    }
    for speed, itl in [(4, 10)] if args.quick else [(1.5, 10), (3, 10), (4.5, 10), (6, 20)]:
        workload = {
            "kind": "mooncake",
            "trace": str(trace()),
            "spread-ties": True,
            "speed": speed,
            "requests": 500 if args.quick else 4000,
        }
        name = f"conversation trace, speed {speed:g}, ITL {itl} ms"
        rows += compare(args, name, workload, {"ttft": "2s", "itl": f"{itl}ms"}, ways)
    return rows


def images(args):
    """Two pictures in most requests, some of them seen before."""
    rows = []
    ways = {
        "aggregated": ([group("workers", "aggregated", DEVICES)], "never"),
        "2 encode, 2 prefill, 4 decode, always": (apart(2, 2), "always"),
        "2 encode, 3 prefill, 3 decode, always": (apart(3, 2), "always"),
        "2 encode, 2 prefill, 4 decode, conditional": (apart(2, 2), "conditional"),
    }
    for rate in [35] if args.quick else [20, 35, 45]:
        workload = {
            "kind": "shared-prefix",
            "rate": rate,
            "requests": 500 if args.quick else 5000,
            "isl": 2000,
            "isl-cv": 1.0,
            "prefix": 200,
            "osl": 150,
            "images": 2,
            "image-share": 0.7,
            "image-size": 1024,
            "image-pool": 2000,
        }
        slo = {"ttft": "1s", "itl": "10ms"}
        rows += compare(args, f"pictures, {rate} requests/s", workload, slo, ways)
    return rows


PARTS = {f.__name__: f for f in (conversation, images)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each (2)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help="writes no result by itself"
    )
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/epd.json")
    args = parser.parse_args()
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "epd.json"
    return args


def main():
    args = arguments()
    rows = []
    for name in args.only or PARTS:
        print(f"{name} …", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    if args.output is not None:
        about = {"preset": PRESET, "devices": DEVICES, "handoff_gb_per_s": GB_PER_S}
        results.write(args.output, " ".join(["./dev bench epd", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
