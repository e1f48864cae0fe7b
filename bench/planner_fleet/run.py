#!/usr/bin/env python3
"""Worker-hours at one SLO: the planner, a reactive policy of +-1, and a fleet for the peak.

    STATOR_BIN=… STATOR_DATA=… bench/planner_fleet/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import concurrent.futures
import csv
import datetime
import itertools
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402
from stator_process import binary  # noqa: E402

CONVERSATION = "mooncake_conversation.jsonl"
CODE = "azure_llm_2023_code.csv"
PRESET = "llama-3.1-8b-fp8-h100"
STEP_TOKENS = 2048
BLOCK = 512  # tokens of one of the trace's blocks
LONGEST = 65_536  # prompt tokens; no number of workers computes longer ones within the limit
CONVERSATIONS = 4  # copies of the conversation trace at a time
CODES = 4  # of the code trace; their bursts fall together
DAY_S = 7200
DAYS = 1
SWING = 0.5  # rate over its mean, at most and at least: 1.5 and 0.5
START_UP = "120s"
SLO = {"ttft": "2s", "itl": "50ms"}
SHARE = 0.99
MOST = 48


def data(name):
    folder = os.environ.get("STATOR_DATA")
    path = pathlib.Path(folder) / name if folder else None
    if path is None or not path.is_file():
        sys.exit(f"$STATOR_DATA names no folder with {name}; bench/README.md says where it is from")
    return path


def warped(seconds, length):
    """When the rate swings like days, the moment until which as much has come as in `seconds` of
    a steady one."""
    low, high = 0.0, float(length)
    angular = 2 * math.pi / DAY_S
    for _ in range(40):
        middle = (low + high) / 2
        came = middle - SWING / angular * math.sin(angular * middle)
        low, high = (middle, high) if came < seconds else (low, middle)
    return low


def conversations(length, seed):
    trace = [json.loads(line) for line in data(CONVERSATION).open()]
    span = trace[-1]["timestamp"] / 1000 + 1
    rng = random.Random(seed)
    for copy in range(CONVERSATIONS):
        shift = rng.uniform(0, span)
        for again in range(math.ceil(length / span) + 1):
            offset = 10_000_000 * (1 + copy + CONVERSATIONS * again)
            for r in trace:
                at = r["timestamp"] / 1000 + again * span - shift
                if 0 <= at < length and r["input_length"] <= LONGEST:
                    hashes = [offset + h for h in r["hash_ids"]]
                    yield warped(at, length), r["input_length"], r["output_length"], hashes


def codes(length, seed):
    rows = list(csv.DictReader(data(CODE).open()))
    times = [datetime.datetime.fromisoformat(r["TIMESTAMP"][:26]).timestamp() for r in rows]
    span = times[-1] - times[0] + 1
    rng = random.Random(seed)
    block = 5_000_000_000
    for again in range(math.ceil(length / span)):
        for _copy in range(CODES):
            for row, when in zip(rows, times):
                at = when - times[0] + again * span + rng.uniform(0, 2)
                isl = int(row["ContextTokens"])
                if at < length and isl > 0:
                    n = math.ceil(isl / BLOCK)
                    yield at, isl, max(1, int(row["GeneratedTokens"])), range(block, block + n)
                    block += n


def write_trace(path, kinds, length, seed):
    requests = []
    if "conversation" in kinds:
        requests += conversations(length, seed)
    if "code" in kinds:
        requests += codes(length, seed + 1000)
    requests.sort(key=lambda r: r[0])
    with path.open("w") as out:
        for at, isl, osl, hashes in requests:
            line = {
                "timestamp": round(at * 1000),
                "input_length": isl,
                "output_length": osl,
                "hash_ids": list(hashes),
            }
            out.write(json.dumps(line, separators=(",", ":")) + "\n")
    return len(requests)


def scenario(trace, planner, initial):
    return {
        "name": planner["policy"],
        "fleet": {
            "name": "workers",
            "workers": initial,
            "preset": PRESET,
            "step_tokens": STEP_TOKENS,
            "block_tokens": BLOCK,
            "blocks": 57_000 * 16 // BLOCK,
        },
        "planner": {"start_up": START_UP, "max": MOST, **planner},
        "workload": {"kind": "mooncake", "trace": str(trace), "spread-ties": True},
        "slo": SLO,
    }


def fact(report, key):
    return next((f["value"] for f in report["facts"] if f["key"] == key), "")


def share_within(summary, limit_ms):
    """Of a distribution's samples, by its quantiles, linear between them."""
    points = summary["quantiles"]
    if not points or summary["max"] <= limit_ms:
        return 1.0
    for (s0, v0), (s1, v1) in itertools.pairwise(points):
        if v1 > limit_ms:
            return s0 + (s1 - s0) * max(0.0, limit_ms - v0) / max(v1 - v0, 1e-9)
    return 1.0


class Outcome:
    """What one run came to."""

    def __init__(self, report, wall_s):
        good = sum(o["count"] for o in report["outcomes"] if o["outcome"] == "ok")
        served = good / max(1, report["requests"])  # who was refused has missed both
        self.hours = float(fact(report, "worker-hours"))
        self.ttft = served * share_within(report["ttft_ms"], 2000)
        self.itl = served * share_within(report["tpot_ms"], 50)
        self.failed = report["requests"] - good
        self.planner = fact(report, "planner")
        self.wall_s = wall_s

    @property
    def attained(self):
        return min(self.ttft, self.itl)

    def __str__(self):
        return (
            f"{self.hours:8.2f} worker-hours, TTFT {100 * self.ttft:.2f} %, ITL "
            f"{100 * self.itl:.2f} %, {self.failed} failed; {self.planner} ({self.wall_s:.1f} s)"
        )


def simulate(trace, planner, initial, seed, html=None):
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        path = pathlib.Path(folder) / "scenario.yaml"
        path.write_text(json.dumps(scenario(trace, planner, initial)))  # JSON is YAML
        command = [binary(), "sim", str(path), "--json", "--seed", str(seed), "--jobs", "1"]
        if html:
            command += ["--html", str(html)]
        begin = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        wall = time.monotonic() - begin
    if done.returncode != 0:
        sys.exit(f"stator sim ended with {done.returncode}: {done.stderr}")
    return Outcome(json.loads(done.stdout), wall)


def pooled(args, jobs):
    """Runs (key, function, arguments) side by side, as many as there are processors for."""
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = {key: pool.submit(f, *rest) for key, f, *rest in jobs}
        return {key: future.result() for key, future in futures.items()}


def reactive(ttft, sensitivity, waits, least):
    """The reference's load loop. Its limits are estimates of its own, so they are a free knob."""
    return {
        "policy": "reactive",
        "interval": "5s",
        "min": least,
        "reactive": {"ttft": ttft, "itl": 0.05, "sensitivity": sensitivity, "waits": waits},
    }


PLANNED = {"policy": "planned", "interval": "10s", "min": 1}


def cheapest(outcomes):
    """The key of the outcome that keeps the SLO at least cost; of none does, the nearest to it."""
    good = {k: o for k, o in outcomes.items() if o.attained >= SHARE}
    if good:
        return min(good, key=lambda k: good[k].hours)
    return max(outcomes, key=lambda k: outcomes[k].attained)


def say(name, outcome):
    print(f"  {name}: {outcome}", flush=True)


def tune_reactive(args, trace, most):
    """Sweeps its knobs on the first seed's trace: what is measured later is the cheapest that
    keeps the SLO there. `most`: workers of the smallest static fleet that does."""
    pairs = ((0.5, 0.8), (0.25, 0.5), (0.15, 0.6))  # limit of its own, sensitivity
    mins = sorted({1, most // 2, max(1, most - 2), max(1, most - 1)})
    if args.quick:
        pairs, mins = pairs[1:2], mins[-2:]
    knobs = [
        (ttft, sensitivity, waits, least)
        for ttft, sensitivity in pairs
        for waits in (True, False)
        for least in mins
    ]
    outcomes = pooled(
        args, [(k, simulate, trace, reactive(*k), max(most // 2, k[3]), 1) for k in knobs]
    )
    for k, o in outcomes.items():
        say(f"reactive ttft {k[0]} s, sensitivity {k[1]}, waits {k[2]}, min {k[3]}", o)
    own_floor = {k: o for k, o in outcomes.items() if k[3] == 1}
    return cheapest(outcomes), cheapest(own_floor or outcomes)


def tune_static(args, trace):
    """The smallest fleet that keeps the SLO without any change."""
    low, high = 0, MOST
    best = None
    while low + 1 < high:
        n = (low + high) // 2
        outcome = simulate(trace, {"policy": "static", "min": 1}, n, 1)
        say(f"static {n}", outcome)
        if outcome.attained >= SHARE:
            high, best = n, outcome
        else:
            low = n
    return high, best


def fleet(args, kinds):
    """Worker-hours of the three policies for a mix of traces."""
    rows = []
    name = " + ".join(kinds)
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        traces = {}
        for seed in range(1, args.seeds + 1):
            traces[seed] = pathlib.Path(folder) / f"{seed}.jsonl"
            n = write_trace(traces[seed], kinds, args.length, seed)
            print(f"  seed {seed}: {n} requests in {args.length} s", flush=True)
        most, _ = tune_static(args, traces[1])
        initial = max(1, most // 2)
        knobs, plain = tune_reactive(args, traces[1], most)
        jobs = []
        for seed, trace in traces.items():
            jobs.append((("planned", seed), simulate, trace, PLANNED, initial, seed))
            start = max(initial, knobs[3])
            jobs.append((("reactive", seed), simulate, trace, reactive(*knobs), start, seed))
            jobs.append((("plain", seed), simulate, trace, reactive(*plain), initial, seed))
            static = {"policy": "static", "min": 1}
            jobs.append((("static", seed), simulate, trace, static, most, seed))
        outcomes = pooled(args, jobs)
    for key, outcome in outcomes.items():
        say(f"{key[0]}, seed {key[1]}", outcome)
    by = {
        policy: [outcomes[(policy, seed)] for seed in range(1, args.seeds + 1)]
        for policy in ("planned", "plain", "reactive", "static")
    }
    told = (
        f"reactive: ttft {plain[0]} s, sensitivity {plain[1]}, "
        f"{'waits' if plain[2] else 'does not wait'} for starts, min {plain[3]}, the reference's; "
        f"with a floor: ttft {knobs[0]} s, sensitivity {knobs[1]}, "
        f"{'waits' if knobs[2] else 'does not wait'} for starts, min {knobs[3]}; "
        f"static: {most} workers"
    )
    peers = (("plain", "reactive"), ("reactive", "reactive with a tuned floor"), ("static", "static"))
    for policy, peer in peers:
        rows.append(
            results.paired_row(
                f"{name}: worker-hours",
                "worker-hours",
                [o.hours for o in by["planned"]],
                [o.hours for o in by[policy]],
                peer,
                "<= 0.9",
                told,
            )
        )
    for policy, all_of in by.items():
        for figure in ("ttft", "itl"):
            share = statistics.mean(getattr(o, figure) for o in all_of)
            goal = f">= {SHARE}" if policy == "planned" else None
            label = f"{name}: {figure.upper()} kept, {policy}"
            rows.append(Row(label, share, "share", target=goal))
    failed = sum(o.failed for o in by["planned"])
    rows.append(Row(f"{name}: requests that failed, planned", failed, "requests", target="<= 0"))
    return rows


def speed(args):
    """An hour of the code trace as it is, with the planner in the loop."""
    described = scenario(data(CODE), PLANNED, 2)
    described["workload"] = {"kind": "azure", "trace": str(data(CODE))}
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        path = pathlib.Path(folder) / "scenario.yaml"
        path.write_text(json.dumps(described))
        walls = []
        for _ in range(3):
            begin = time.monotonic()
            subprocess.run([binary(), "sim", str(path), "--json"], check=True, capture_output=True)
            walls.append(time.monotonic() - begin)
    return [Row("hour of the code trace, replayed", min(walls), "s", target="<= 5")]


PARTS = {
    "speed": speed,
    "mixed": lambda args: fleet(args, ("conversation", "code")),
    "conversation": lambda args: fleet(args, ("conversation",)),
    "code": lambda args: fleet(args, ("code",)),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half a day, one seed, few knobs")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="only these parts")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/…")
    args = parser.parse_args()
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "planner_fleet.json"
    args.length = DAY_S // 2 if args.quick else DAY_S * DAYS
    if args.quick:
        args.seeds = 1
        args.output = None
    return args


def main():
    args = arguments()
    rows = []
    for name in args.only or ("speed", "mixed"):
        print(f"{name} …", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    if args.output is not None:
        about = {
            "conversation_trace": f"{CONVERSATION}, {CONVERSATIONS} copies at a time, shifted",
            "code_trace": f"{CODE}, {CODES} copies at a time, bursts together",
            "prompts_left_out_from_tokens": LONGEST + 1,
            "swing": f"1 +- {SWING} times the mean, days of {DAY_S} s, {args.length} s in all",
            "engine": f"{PRESET}, steps of {STEP_TOKENS} tokens",
            "start_up": START_UP,
            "slo": {**SLO, "share": SHARE},
            "seeds": args.seeds,
            "load_average": round(os.getloadavg()[0], 1),
        }
        results.write(
            args.output, " ".join(["./dev bench planner_fleet", *sys.argv[1:]]), rows, about
        )
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
