#!/usr/bin/env python3
"""Whole requests, prompts and pictures always on workers of their own, or as the router decides.

    STATOR_BIN=… STATOR_DATA=… bench/epd/run.py [--quick] [--live | --only PART …]

See bench/README.md.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shlex
import statistics
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


LIVE_GB_PER_S = 1000  # of a simulated handoff where the real one is mapped, not copied
LIVE_SECONDS = 25  # of requests' starts, in real time
HOLD = {"hold": "500ms", "requests": 2048}  # as a frontend holds requests


def measured(spec):
    """A run with real processes, in a process of its own. Where others use the machine,
    $STATOR_BENCH_ALONE is a command that runs another one while they wait."""
    alone = shlex.split(os.environ.get("STATOR_BENCH_ALONE", ""))
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        asked, answer = pathlib.Path(folder) / "spec.json", pathlib.Path(folder) / "report.json"
        asked.write_text(json.dumps(spec))
        command = [*alone, sys.executable, str(HERE / "live.py"), str(asked), str(answer)]
        subprocess.run(command, check=True, timeout=1800)
        return json.loads(answer.read_text())


def good_rate(report):
    """Good requests for each second in which requests started: how long the last answer takes
    says nothing."""
    return report["good_share"] * report["offered_rate"]


def halfway(computed):
    """From how many tokens on more prompts were split than not: the bound with the fewest on its
    wrong side."""
    bounds = [bound for bound, _ in computed["whole"]]
    whole, split = ([n for _, n in computed[way]] for way in ("whole", "split"))
    wrong = [sum(split[:i]) + sum(whole[i:]) for i in range(len(bounds) + 1)]
    least = wrong.index(min(wrong))
    share = sum(split) / max(1, sum(split) + sum(whole))
    return (bounds[least - 1] if least else 0), share


def group_live(name, role, workers):
    return {**group(name, role, workers), "handoff_gb_per_s": LIVE_GB_PER_S}


def apart_live(prefill, encode=0):
    groups = apart(prefill, encode)
    return [group_live(g["name"], g["role"], g["workers"]) for g in groups]


def compare_live(args, name, workloads, warm_up, slo, ways):
    """Rows of one workload, real and simulated: `workloads` is the same for both sides."""
    real_workload, simulated_workload = workloads
    runs = {way: [] for way in ways}
    model, reports = {}, {}
    for way, (fleet, disaggregation) in ways.items():
        scenario = {
            "name": f"{name}: {way}",
            "fleet": fleet,
            "router": {"disaggregation": disaggregation, "queue": HOLD},
            "workload": simulated_workload,
            "slo": slo,
        }
        model[way] = simulate(scenario, 1)
    for turn in range(args.live_runs):
        # What the machine does besides changes slowly: the ways take turns.
        for way, (fleet, disaggregation) in ways.items():
            spec = {
                "fleet": fleet,
                "preset": PRESET,
                "disaggregation": disaggregation,
                "workload": real_workload,
                "warm_up": warm_up,
                "slo": slo,
                "seed": 1,
            }
            report = measured(spec)
            live = report["live"]
            cores = ", ".join(f"{who} {used:.2f}" for who, used in live["cores"].items())
            print(
                f"  {name}: {way}, run {turn + 1}: {good_rate(report):.2f} good req/s of "
                f"{report['offered_rate']:.2f} (simulated {good_rate(model[way]):.2f}); "
                f"CPU cores: {cores}, machine {live['machine_busy_cores']:.2f}",
                flush=True,
            )
            runs[way].append(good_rate(report))
            reports.setdefault(way, []).append(report)
    goodput = {way: statistics.mean(of) for way, of in runs.items()}
    fixed = {way: of for way, of in goodput.items() if ways[way][1] != "conditional"}
    best = max(fixed, key=fixed.get)
    rows = []
    for way, of in reports.items():
        good = statistics.mean(r["good_share"] for r in of) * 100
        cpu = max(r["live"]["machine_busy_cores"] for r in of)
        note = (
            f"{good:.1f} % good; TTFT p90 {middle(of, 'ttft_ms', 'p90'):.0f} ms, "
            f"ITL p90 {middle(of, 'itl_ms', 'p90'):.1f} ms; simulated "
            f"{model[way]['good_share'] * 100:.1f} %, {model[way]['ttft_ms']['p90']:.0f} ms, "
            f"{model[way]['itl_ms']['p90']:.1f} ms; {cpu:.2f} cores busy"
        )
        simulated = good_rate(model[way])
        rows.append(
            Row(
                f"{name}: {way}",
                goodput[way],
                "good req/s",
                "simulated",
                simulated,
                goodput[way] / simulated if simulated else None,
                note=note,
            )
        )
        if ways[way][1] != "conditional":
            continue
        size, share = halfway(added([r["live"]["computed"] for r in of]))
        pairs = [a / b for a, b in zip(runs[way], runs[best]) if b]
        rows.append(
            Row(
                f"{name}: {way}, against the best fixed way",
                goodput[way],
                "good req/s",
                best,
                fixed[best],
                statistics.mean(pairs) if pairs else None,
                f">= {TOLERATED}",
                pairs,
                f"{share * 100:.0f} % split",
            )
        )
        simulated_size, simulated_share = border([model[way]])
        note = f"simulated {simulated_size}, {simulated_share * 100:.0f} % split"
        rows.append(Row(f"{name}: break-even prompt", size, "tokens", note=note))
    spread = max((max(of) / min(of) - 1) * 100 for of in runs.values() if min(of) > 0)
    rows.append(Row(f"{name}: two runs of a way, largest difference", spread, "%"))
    return rows


def added(all_computed):
    """The sum of histograms."""
    return {
        way: [(b[0][0], sum(n for _, n in b)) for b in zip(*(c[way] for c in all_computed))]
        for way in ("whole", "split")
    }


def live_conversation(args):
    """The trace's beginning at four times its speed; eight processes are the devices."""
    ways = {
        "aggregated": ([group_live("workers", "aggregated", DEVICES)], "never"),
        "3 prefill, 5 decode, always": (apart_live(3), "always"),
        "4 prefill, 4 decode, always": (apart_live(4), "always"),
        "3 prefill, 5 decode, conditional": (apart_live(3), "conditional"),
    }
    speed, rate = 4, 13.6
    workload = {
        "kind": "mooncake",
        "trace": str(trace()),
        "spread-ties": True,
        "speed": speed,
        "requests": int((5 if args.quick else args.live_seconds) * rate),
    }
    warm_up = {"skip": 6000, "requests": int((3 if args.quick else 8) * rate)}
    name = f"real time: conversation trace, speed {speed}, ITL 10 ms"
    slo = {"ttft": "2s", "itl": "10ms"}
    return compare_live(args, name, (workload, workload), warm_up, slo, ways)


def live_images(args):
    """Two pictures in most requests, sent as data URLs."""
    ways = {
        "aggregated": ([group_live("workers", "aggregated+encode", DEVICES)], "never"),
        "2 encode, 6 whole": (
            [group_live("encoders", "encode", 2), group_live("workers", "aggregated", 6)],
            "never",
        ),
        "2 encode, 3 prefill, 3 decode, always": (apart_live(3, 2), "always"),
        "2 encode, 2 prefill, 4 decode, conditional": (apart_live(2, 2), "conditional"),
    }
    rate = 45
    workload = {
        "kind": "shared-prefix",
        "rate": rate,
        "requests": (5 if args.quick else args.live_seconds) * rate,
        "isl": 2000,
        "isl-cv": 1.0,
        "prefix": 200,
        "osl": 150,
        "images": 2,
        "image-share": 0.7,
        "image-pool": 2000,
    }
    # 1,024 tokens each: here a token is 28 x 28 pixels, there it is as live.py says.
    sides = (
        {**workload, "image-size": 128},
        {**workload, "image-size": 896},
    )
    warm_up = {"requests": (3 if args.quick else 8) * rate}
    name = f"real time: pictures, {rate} requests/s"
    return compare_live(args, name, sides, warm_up, {"ttft": "1s", "itl": "10ms"}, ways)


LIVE = (live_conversation, live_images)
PARTS = {f.__name__: f for f in (conversation, images, *LIVE)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each (2)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help="writes no result by itself"
    )
    parser.add_argument(
        "--live", action="store_true", help="the parts with real processes; the others' rows stay"
    )
    parser.add_argument(
        "--simulated", action="store_true", help="the parts without them; the others' rows stay"
    )
    parser.add_argument("--live-runs", type=int, default=2, help="of each way in real time (2)")
    parser.add_argument(
        "--live-seconds", type=int, default=LIVE_SECONDS, help=f"of requests each ({LIVE_SECONDS})"
    )
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/epd.json")
    args = parser.parse_args()
    if args.live:
        args.only = args.only or [f.__name__ for f in LIVE]
    if args.simulated:
        args.only = [name for name in PARTS if PARTS[name] not in LIVE]
    if args.quick:
        args.live_runs = 1
    if args.output is None and not args.quick and (args.live or args.simulated or not args.only):
        args.output = results.RESULTS / "epd.json"
    return args


def others(path, real):
    """The rows of an earlier run that are of the other kind: simulated, or with real processes."""
    if not path.exists():
        return []
    fields = {field.name for field in dataclasses.fields(Row)}
    kept = json.loads(path.read_text())["rows"]
    old = [Row(**{k: v for k, v in row.items() if k in fields}) for row in kept]
    return [row for row in old if row.name.startswith("real time") == real]


def main():
    args = arguments()
    rows = []
    for name in args.only or PARTS:
        print(f"{name} …", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    if args.output is not None:
        if args.live:
            rows = others(args.output, real=False) + rows
        if args.simulated:
            rows += others(args.output, real=True)
        about = {"preset": PRESET, "devices": DEVICES, "handoff_gb_per_s": GB_PER_S}
        results.write(args.output, " ".join(["./dev bench epd", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
