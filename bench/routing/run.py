#!/usr/bin/env python3
"""What each routing policy makes of the same traffic, how true predictions are, a decision's cost.

    STATOR_BIN=… STATOR_BUILD=… STATOR_DATA=… bench/routing/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import procfs, results  # noqa: E402
from harness.fleet import Frontend  # noqa: E402
from harness.results import Row  # noqa: E402
from stator_process import StatorWorker, binary  # noqa: E402

TRACE = "mooncake_conversation.jsonl"
CHUNK = 2048  # prompt tokens of a step
SPEED_NOISE = 0.1  # between workers, standard deviation
OURS = "expected-ttft"
POLICIES = {
    OURS: {},
    "dynamo": {},
    "dynamo, queued prompts not tracked": {
        "policy": "dynamo",
        "track_prefill_tokens": False,
    },
    "dynamo, overlap weight 4": {"policy": "dynamo", "overlap_weight": 4},
    "least-loaded": {},
    "power-of-two": {},
    "round-robin": {},
    "random": {},
    "consistent-hash": {},
}


def trace():
    folder = os.environ.get("STATOR_DATA")
    path = pathlib.Path(folder) / TRACE if folder else None
    if path is None or not path.is_file():
        sys.exit(
            f"$STATOR_DATA names no folder with {TRACE}; it is part of Mooncake's trace release"
        )
    return path


def group(name, workers, tokens_per_s, blocks, step_ms):
    """Workers that compute so many prompt tokens a second in full steps; a step has a fixed part,
    which is what a step of decoding takes."""
    token_us = (CHUNK / tokens_per_s - step_ms / 1000) / CHUNK * 1e6
    return {
        "name": name,
        "workers": workers,
        "step_time": {
            "form": "linear",
            "base_ms": step_ms,
            "prefill_token_us": round(token_us, 3),
        },
        "blocks": blocks,
        "block_tokens": 512,
        "step_tokens": CHUNK,
        "speed_noise": SPEED_NOISE,
    }


def eight(step_ms):
    return [group("workers", 8, 7000, 4000, step_ms)]


def sixteen(step_ms):
    return [group("fast", 8, 4000, 2000, step_ms), group("slow", 8, 2000, 2000, step_ms)]


def scenario(fleet, policy, args):
    workload = {"kind": "mooncake", "trace": str(trace()), "spread-ties": True}
    if args.quick:
        workload["requests"] = 1500
    return {
        "name": policy,
        "fleet": fleet,
        "router": {"policy": policy, **POLICIES.get(policy, {})},
        "workload": workload,
    }


def simulate(described, seed):
    """The report of `stator sim --json`."""
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        path = pathlib.Path(folder) / "scenario.yaml"
        path.write_text(json.dumps(described))  # JSON is YAML
        command = [binary(), "sim", str(path), "--json", "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"stator sim ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def fact(report, key):
    return next((f["value"] for f in report["facts"] if f["key"] == key), "")


def prediction_error(report):
    return float(re.match(r"median error ([0-9.]+) %", fact(report, "predicted TTFT")).group(1))


def mean_s(report):
    return report["ttft_ms"]["mean"] / 1000


def p99_s(report):
    return report["ttft_ms"]["p99"] / 1000


def run_all(fleet, policies, args):
    """Reports by policy, one a seed."""
    seeds = range(1, args.seeds + 1)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        started = {
            policy: [pool.submit(simulate, scenario(fleet, policy, args), seed) for seed in seeds]
            for policy in policies
        }
        return {policy: [run.result() for run in runs] for policy, runs in started.items()}


def quality(title, fleet, args, against_dynamo, against_least_loaded):
    reports = run_all(fleet, POLICIES, args)
    rows = []
    for policy, runs in reports.items():
        times = [mean_s(r) for r in runs]
        tails = [p99_s(r) for r in runs]
        cached = statistics.mean(r["cached_ratio"] for r in runs)
        itl = statistics.mean(r["itl_ms"]["mean"] for r in runs)
        note = (
            f"seeds {min(times):.3g} to {max(times):.3g}; p99 {statistics.median(tails):.3g} s; "
            f"{100 * cached:.1f} % of prompt tokens cached; ITL {itl:.1f} ms"
        )
        rows.append(Row(f"{title}: mean TTFT, {policy}", statistics.median(times), "s", note=note))
    for peer, bound in (("dynamo", against_dynamo), ("least-loaded", against_least_loaded)):
        for name, figure, target in (("mean", mean_s, bound), ("p99", p99_s, "<= 1.0")):
            rows.append(
                results.paired_row(
                    f"{title}: {name} TTFT against {peer}",
                    "s",
                    [figure(r) for r in reports[OURS]],
                    [figure(r) for r in reports[peer]],
                    peer,
                    target,
                )
            )
    errors = [prediction_error(r) for r in reports[OURS]]
    rows.append(
        Row(
            f"{title}: predicted TTFT against real, median error",
            statistics.median(errors),
            "%",
            target="<= 15",
            note=f"seeds {min(errors):.1f} to {max(errors):.1f}",
        )
    )
    return rows


# --- parts


def homogeneous(args):
    return quality("8 workers of 7,000 tokens/s", eight(30), args, "<= 0.70", "<= 0.80")


def mixed(args):
    return quality("8 of 4,000 and 8 of 2,000 tokens/s", sixteen(30), args, "<= 0.70", "<= 0.75")


def fast_decoding(args):
    """The same fleets where a step of decoding takes 5 ms: how far the result depends on it."""
    rows = []
    for title, fleet in (("8 workers", eight(5)), ("16 workers", sixteen(5))):
        reports = run_all(fleet, (OURS, "dynamo", "least-loaded"), args)
        for peer in ("dynamo", "least-loaded"):
            rows.append(
                results.paired_row(
                    f"{title}, steps of 5 ms: mean TTFT against {peer}",
                    "s",
                    [mean_s(r) for r in reports[OURS]],
                    [mean_s(r) for r in reports[peer]],
                    peer,
                )
            )
    return rows


def burst(args):
    """64 identical prompts of 8,192 tokens at once, 16 idle workers."""
    line = {"timestamp": 0, "input_length": 8192, "output_length": 50, "hash_ids": list(range(16))}
    fleet = [group("workers", 16, 7000, 8000, 30) | {"block_tokens": 16, "speed_noise": 0}]
    rows = []
    with tempfile.NamedTemporaryFile("w", prefix="stator-bench-", suffix=".jsonl") as file:
        file.write((json.dumps(line) + "\n") * 64)
        file.flush()
        for policy in (OURS, "dynamo", "least-loaded"):
            described = {
                "name": "burst",
                "fleet": fleet,
                "router": {"policy": policy},
                "workload": {"kind": "mooncake", "trace": file.name},
            }
            report = simulate(described, 1)
            computed = report["input_tokens"] - report["cached_tokens"]
            rows.append(
                Row(
                    f"64 equal prompts on 16 workers: workers used, {policy}",
                    report["workers"]["workers"],
                    "workers",
                    target="<= 3" if policy == OURS else None,
                    note=f"{computed} prompt tokens computed, mean TTFT {mean_s(report):.3g} s",
                )
            )
    return rows


def replicas(args):
    """Four routers that tell each other what they book, over messages of which one in a hundred is
    lost; against one router, and against four that tell each other nothing."""
    kinds = {
        "one router": {},
        "four": {"replicas": 4, "message_loss": 0.01, "message_delay": "1ms"},
        "four, each by itself": {"replicas": 4, "share_bookings": False},
    }
    rows = []
    for title, fleet in (("8 workers", eight(30)), ("16 workers", sixteen(30))):
        seeds = range(1, args.seeds + 1)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            started = {}
            for kind, options in kinds.items():
                described = scenario(fleet, OURS, args)
                described["router"] |= options
                started[kind] = [pool.submit(simulate, described, seed) for seed in seeds]
            reports = {kind: [run.result() for run in runs] for kind, runs in started.items()}
        for kind in list(kinds)[1:]:
            for name, figure in (("mean", mean_s), ("p99", p99_s)):
                rows.append(
                    results.paired_row(
                        f"{title}: {name} TTFT, {kind}, against one router",
                        "s",
                        [figure(r) for r in reports[kind]],
                        [figure(r) for r in reports["one router"]],
                        "one router",
                        "<= 1.03" if kind == "four" else None,
                        fact(reports[kind][0], "routers"),
                    )
                )
    return rows


def decision(args):
    """The micro-benchmark of the room, alone on its core."""
    bench = args.build / "stator" / "router" / "router_bench"
    command = [str(bench), "--benchmark_format=json"]
    if args.quick:
        command.append("--benchmark_min_time=0.05")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{bench} ended with {done.returncode}: {done.stderr}")
    found = {b["name"].split("/iterations")[0]: b for b in json.loads(done.stdout)["benchmarks"]}
    targets = {1000: {"p50_us": "<= 20", "p99_us": "<= 50"}, 10000: {"p99_us": "<= 300"}}
    rows = []
    for name, measured in found.items():
        workers = int(measured["workers"])
        for counter in ("p50_us", "p99_us"):
            target = targets.get(workers, {}).get(counter) if "expected" in name else None
            rows.append(
                Row(f"decision, {name}, {counter[:3]}", measured[counter], "us", target=target)
            )
    return rows


# --- the audit of predictions

FAULTED = 2  # the worker
FAULT_BEGINS, FAULT_LASTS = 600, 1500  # seconds
FAULTS = {
    "loses 5 % of its events, unnumbered": "lose-events@{at}s+{length}s:0.05",
    "computes another template": "wrong-template@{at}s+{length}s",
    "names blocks by another hash seed": "changed-hash-seed@{at}s+{length}s",
}
TURN = re.compile(r"(\w+) at ([0-9.]+) s after ([0-9]+) requests")


def turns(report, worker):
    """What the audit thought of a worker: verdict, seconds, requests since its fault began."""
    return [
        (verdict, float(at), int(requests))
        for verdict, at, requests in TURN.findall(fact(report, f"audit of workers/{worker}"))
    ]


def alarms(report, but=None):
    """Verdicts against workers that have no fault."""
    names = [f["key"] for f in report["facts"] if f["key"].startswith("audit of workers/")]
    workers = [int(name.rsplit("/", 1)[1]) for name in names]
    return sum(
        verdict != "trusted"
        for worker in workers
        if worker != but
        for verdict, _, _ in turns(report, worker)
    )


def audit(args):
    """8 workers as in the first part. From 600 s to 2,100 s one has a fault that nothing tells the
    router of; after how many of its requests the audit notices, and whether it trusts the worker
    again once the fault is over."""
    fleet = eight(30)
    seeds = range(1, args.seeds + 1)
    begin, length = (100, 300) if args.quick else (FAULT_BEGINS, FAULT_LASTS)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        described = scenario(fleet, OURS, args)
        healthy = list(pool.map(lambda seed: simulate(described, seed), seeds))
        faulty = {}
        for name, fault in FAULTS.items():
            schedule = f"worker={FAULTED}:" + fault.format(at=begin, length=length)
            faulty[name] = list(
                pool.map(lambda seed, s=schedule: simulate(described | {"faults": s}, seed), seeds)
            )
    false = [alarms(report) for report in healthy]
    rows = [
        Row(
            "audit, no faults: false alarms",
            float(sum(false)),
            "alarms",
            target="<= 0",
            note=f"{len(false)} runs of {healthy[0]['requests']} requests",
        )
    ]
    for name, reports in faulty.items():
        after, again, others = [], [], 0
        for report in reports:
            of_worker = turns(report, FAULTED)
            noticed = [n for verdict, at, n in of_worker if verdict != "trusted" and at >= begin]
            after.append(noticed[0] if noticed else 10**6)
            back = of_worker and of_worker[-1][0] == "trusted" and of_worker[-1][1]
            if back and back >= begin + length:
                again.append(back - begin - length)
            others += alarms(report, FAULTED)
        note = f"runs: {min(after)} to {max(after)}; median {statistics.median(after)}"
        rows.append(
            Row(
                f"audit, a worker {name}: requests until it is noticed",
                float(max(after)),
                "requests",
                target="<= 200",
                note=f"{note}; {others} alarms about others",
            )
        )
        rows.append(
            Row(
                "the same: trusted again after it was mended",
                100 * len(again) / len(reports),
                "% of runs",
                note=f"{statistics.median(again):.0f} s later (median)" if again else "",
            )
        )
    return rows


# --- a frontend that is killed and comes back


def fill_caches(url, blocks, workers):
    """Prompts without a common prefix until every worker has as many blocks: long ones, few
    tokens of output."""
    isl = 65_536
    requests = -(-blocks * workers * 16 // isl)
    command = [binary(), "bench", "--url", url, "--api", "tokens", "--isl", isl, "--osl", 1]
    command += ["--concurrency", workers, "--requests", requests]
    done = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"stator bench failed: {done.stdout}{done.stderr}")


def known_blocks(frontend):
    """Of each rank, by GET /router; nothing while it does not answer."""
    try:
        status, _, body = frontend.request("GET", "/router", timeout=5)
    except OSError:
        return []
    pools = json.loads(body)["pools"] if status == 200 else []
    return [rank["blocks"] for pool in pools for rank in pool["ranks"]]


class Asking(threading.Thread):
    """A small request after the other until the end; when each was answered."""

    def __init__(self, frontend):
        super().__init__(daemon=True)
        self.frontend = frontend
        self.ended = threading.Event()
        self.answers = []

    def run(self):
        body = {"model": "mock", "prompt": [7, 8, 9], "max_tokens": 2}
        while not self.ended.is_set():
            try:
                status = self.frontend.request("POST", "/v1/completions", body, timeout=10)[0]
            except OSError:
                status = 0
            self.answers.append((time.monotonic(), status))
            time.sleep(0.005)


def restart(args):
    """kill -9 of a frontend whose workers hold 100,000 blocks each; how soon its successor knows
    them all, and whether it serves meanwhile."""
    workers, blocks = (4, 5_000) if args.quick else (16, 100_000)
    complete, serving, failed = [], [], 0
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        options = {"count": workers, "mock_blocks": blocks + 5_000, "speedup": 50}
        options |= {"mock_preset": "constant-10ms", "threads": 1, "log_level": "warn"}
        door = {"access_log": "false", "log_level": "warn", "router_policy": "round-robin"}
        with StatorWorker(folder, "gpu", engine="mock", **options):
            with Frontend(folder, **door) as frontend:
                frontend.wait_for_workers(workers)
                fill_caches(frontend.base_url, blocks, workers)
                held = sorted(known_blocks(frontend))
                if not held or held[0] < 0.9 * blocks:
                    sys.exit(f"the workers hold {held} blocks, not {blocks}")
                frontend.process.kill()
                frontend.process.wait()
            for _ in range(1 if args.quick else 5):
                successor = Frontend(folder, **door)
                started = time.monotonic()
                successor.launch()
                try:
                    while not (successor.port or successor.find_port()):
                        time.sleep(0.002)
                    successor.port = successor.find_port()
                    asking = Asking(successor)
                    asking.start()
                    while sum(known_blocks(successor)) < 0.999 * sum(held):
                        if time.monotonic() - started > 60:
                            sys.exit(f"after a minute it knows {known_blocks(successor)}")
                        time.sleep(0.01)
                    complete.append(time.monotonic() - started)
                    asking.ended.set()
                    asking.join()
                    first = next((at for at, status in asking.answers if status == 200), None)
                    serving.append((first or time.monotonic()) - started)
                    failed += sum(
                        status != 200 for at, status in asking.answers if first and at > first
                    )
                finally:
                    successor.kill()
                    successor.stop()
    note = f"{sum(held)} blocks of {workers} workers; runs: {min(complete):.2f} to {max(complete):.2f} s"
    return [
        Row(
            "restarted frontend: its index is complete",
            max(complete),
            "s",
            target="<= 2",
            note=note,
        ),
        Row("the same: first answer", max(serving), "s"),
        Row("the same: requests failed after it", float(failed), "requests", target="<= 0"),
    ]


PARTS = {
    f.__name__: f
    for f in (homogeneous, mixed, fast_decoding, burst, replicas, decision, audit, restart)
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--seeds", type=int, help="of the workers' speeds (10)")
    parser.add_argument("--jobs", type=int, default=procfs.cores(), help="simulations at a time")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help="writes no result by itself"
    )
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/routing.json")
    args = parser.parse_args()
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "routing.json"
    args.seeds = args.seeds or (2 if args.quick else 10)
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
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
        about = {
            "trace": TRACE,
            "seeds": args.seeds,
            "speed_noise_between_workers": SPEED_NOISE,
            "tokens_of_a_step": CHUNK,
            "load_average": round(os.getloadavg()[0], 1),
        }
        results.write(args.output, " ".join(["./dev bench routing", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
