#!/usr/bin/env python3
"""A real supervisor, real llama workers, a load that grows beyond what one of them can do.

    STATOR_BIN=… STATOR_MODEL=… bench/planner_live/run.py [--seconds N]

See bench/README.md.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import stator_process  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402

ISL, OSL = 96, 16
SLO_TTFT, SLO_ITL = "4s", "500ms"
SHARE = 0.99
MOST = 2
PLAN = {
    "planner": "act",
    "planner_workers": f"aggregated=1-{MOST}",
    "slo_ttft": SLO_TTFT,
    "slo_itl": SLO_ITL,
    "planner_interval": "2s",
    "planner_start_up": "4s",
    "planner_down_after": "20s",
    "planner_cooldown": "10s",
}


def bench(url, folder, name, *flags):
    out = folder / f"{name}.json"
    command = [stator_process.binary(), "bench", "--url", url, "--api", "tokens"]
    command += ["--isl", ISL, "--osl", OSL, "--slo-ttft", SLO_TTFT, "--slo-itl", SLO_ITL]
    command += ["--json", out, *flags]
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=stator_process.child_environment(),
    )
    if not out.is_file():
        sys.exit(f"stator bench failed:\n{done.stdout}")
    return json.loads(out.read_text())


def ready(server):
    health = json.loads(server.request("GET", "/health", timeout=30)[2])
    return sum(w["state"] == "ready" for w in health["fleet"]["workers"])


def wait_ready(server, count, seconds):
    end = time.monotonic() + seconds
    while ready(server) != count:
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def started_at(decisions):
    """Of the first order to start while there was demand, and when the first window missed the
    SLO; seconds since 1970, or none."""
    order = miss = None
    for d in decisions:
        demand = d["demand"] or {"offered": 0}
        if order is None and demand["offered"] > 0:
            if any(a["kind"] == "start" for a in d["actions"]):
                order = d["at"]
        for figure in ("ttft", "itl"):
            f = demand.get(figure, {"count": 0})
            if miss is None and f["count"] > 0 and f["within"] < SHARE * f["count"]:
                miss = d["at"]
    return order, miss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120, help="how long the load grows")
    parser.add_argument(
        "--output", type=pathlib.Path, default=results.RESULTS / "planner_live.json"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stator-pl-") as scratch:
        folder = pathlib.Path(scratch)
        # What one worker can do, by itself: half of the cores are another's.
        one = {"workers": 1, "engine_threads": 1, "threads": 1}
        with stator_process.StatorServer(stator_process.model(), folder=folder, **one) as server:
            wait_ready(server, 1, 60)
            alone = bench(server.base_url, folder, "alone", "--arrivals", "closed", "--concurrency", 8, "--requests", 96)
        capacity = sum(o["count"] for o in alone["outcomes"] if o["outcome"] == "ok") / alone["seconds"]
        print(f"one worker: {capacity:.2f} requests/s")
        flags = {**PLAN, "engine_threads": 1, "threads": 1}
        with stator_process.StatorServer(stator_process.model(), folder=folder, **flags) as server:
            wait_ready(server, 1, 60)
            ramp = bench(
                server.base_url, folder, "ramp",
                *("--rate", f"{0.2 * capacity:.3f}", "--rate-end", f"{1.2 * capacity:.3f}"),
                *("--duration", f"{args.seconds}s", "--arrivals", "poisson"),
            )
            peak = max(
                r["ready"]
                for d in json.loads(server.request("GET", "/planner/decisions?limit=256")[2])["decisions"]
                for r in d["roles"]
            )
            drained = wait_ready(server, 1, 120)
            body = server.request("GET", "/planner/decisions?limit=256")[2]
            decisions = list(reversed(json.loads(body)["decisions"]))
    outcomes = {o["outcome"]: o["count"] for o in ramp["outcomes"]}
    failed = sum(n for outcome, n in outcomes.items() if outcome != "ok")
    order, miss = started_at(decisions)
    ahead = (miss - order) if order and miss else None
    if order is None:
        ahead = -9999.0
    elif miss is None:
        ahead = 9999.0
    rows = [
        Row("requests that failed", failed, "requests", target="<= 0",
            note=f"of {sum(outcomes.values())}; from 0.2 to 1.2 of what one worker can do"),
        Row("workers at the peak", peak, "workers", target=f">= {MOST}"),
        Row("requests within the SLO", ramp["good_share"], "share", target=f">= {SHARE}",
            note=f"TTFT of {SLO_TTFT}, {SLO_ITL} between tokens"),
        Row("first worker ordered before the first late window", ahead, "s", target=">= 0",
            note="9999: no window was late; -9999: none was ordered"),
        Row("one worker again afterwards", float(drained), "yes", target=">= 1"),
    ]
    print(results.table(rows))
    about = {
        "engine": "llama workers with one thread each, the default model",
        "one_worker_requests_per_s": round(capacity, 3),
        "isl": ISL,
        "osl": OSL,
        "planner": PLAN,
        "ramp_s": args.seconds,
        "load_average": round(os.getloadavg()[0], 1),
    }
    if args.output is not None:
        results.write(args.output, "./dev bench planner_live", rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
