#!/usr/bin/env python3
"""The simulator's speed, memory and truth, and what a fleet of mock engines costs.

    STATOR_BIN=… STATOR_BUILD=… STATOR_DATA=… bench/sim/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import procfs, results  # noqa: E402
from harness.fleet import Frontend, meeting_place  # noqa: E402
from harness.results import Row  # noqa: E402
from stator_process import StatorWorker, binary  # noqa: E402

TRACE = "mooncake_conversation.jsonl"
PRESET = "llama-3.1-8b-fp8-h100"
MOCK_WORKERS = 256
MOCK_RATE = 2000
MOCK_LENGTHS = [(500, 50), (2000, 200)]  # prompt, output
AGREEING_WORKERS = 4


def trace():
    folder = os.environ.get("STATOR_DATA")
    path = pathlib.Path(folder) / TRACE if folder else None
    if path is None or not path.is_file():
        sys.exit(
            f"$STATOR_DATA names no folder with {TRACE}; it is part of Mooncake's trace release"
        )
    return path


def simulate(scenario, *arguments):
    """Runs `stator sim --json`: its output, CPU seconds, wall seconds, peak memory in bytes."""
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        path = pathlib.Path(folder) / "scenario.yaml"
        path.write_text(json.dumps(scenario))  # JSON is YAML
        begin = time.monotonic()
        command = [binary(), "sim", str(path), "--json", *arguments]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        text = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"stator sim ended with {child.returncode}")
    wall = time.monotonic() - begin
    return text, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024


def answered(report):
    return sum(o["count"] for o in report["outcomes"] if o["outcome"] == "ok")


# --- speed and memory


def conversation(args):
    scenario = {
        "name": "an hour of conversations, 64 workers",
        "fleet": {"workers": 64, "preset": PRESET},
        "workload": {"kind": "mooncake", "trace": str(trace())},
    }
    if args.quick:
        scenario["workload"]["requests"] = 500
    runs = [simulate(scenario) for _ in range(args.runs)]
    report = json.loads(runs[0][0])
    cpu = [run[1] for run in runs]
    wall = [run[2] for run in runs]
    note = (
        f"{answered(report)} of {report['requests']} requests answered, {report['output_tokens']} tokens; "
        f"one thread; runs: {min(wall):.2f} to {max(wall):.2f} s by the wall clock"
    )
    return [
        Row(
            "conversation trace, 64 workers: CPU",
            statistics.median(cpu),
            "s",
            target="<= 10",
            note=note,
        ),
        Row("the same: peak memory", max(run[3] for run in runs) / 2**20, "MiB"),
    ]


def fleet_10000(args):
    """Once: it takes minutes."""
    scenario = {
        "name": "10,000 workers, an hour",
        "fleet": {"workers": 10_000, "preset": PRESET, "blocks": 4096, "block_tokens": 16},
        "workload": {
            "kind": "shared-prefix",
            "rate": 1e6 / 3600,
            "requests": 10_000 if args.quick else 1_000_000,
            "isl": 2000,
            "prefix": 1000,
            "groups": 5000,
            "osl": 200,
        },
    }
    text, cpu, wall, memory = simulate(scenario)
    report = json.loads(text)
    note = f"{answered(report)} of {report['requests']} requests answered; one thread"
    return [
        Row("10,000 workers, 1 M requests", wall, "s", target="<= 600", note=note),
        Row("the same: CPU", cpu, "s"),
        Row("the same: peak memory", memory / 2**30, "GiB", target="<= 8"),
    ]


def repeat(_):
    """All that draws at random: times, lengths, noise of steps, the router, a crash."""
    scenario = {
        "name": "repeat",
        "fleet": {"workers": 8, "preset": PRESET, "noise": 0.1, "blocks": 2000},
        "router": {"policy": "random"},
        "faults": "worker=3:crash@40s",
        "workload": {"kind": "chat", "rate": 6, "requests": 2000, "turns": 4},
    }
    first, second, other = (simulate(scenario, "--seed", seed)[0] for seed in ("5", "5", "6"))
    if first == other:
        sys.exit("the seed has no influence")
    return [
        Row("two runs of one seed, same bytes", float(first == second), "1 = yes", target=">= 1")
    ]


# --- a fleet of mock engines


def mock_figures(args, prompt, output):
    """What bench_mock_fleet says of a fresh process of mock workers, and the process's memory."""
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        options = {"count": MOCK_WORKERS, "mock_blocks": 8192, "log_level": "warn"}
        with StatorWorker(folder, "gpu", engine="mock", **options) as worker:
            command = [
                args.build / "bench" / "bench_mock_fleet",
                meeting_place(folder),
                "gpu",
                MOCK_WORKERS,
            ]
            command += [worker.pid, MOCK_RATE, 4 if args.quick else 20, prompt, output]
            done = subprocess.run(
                [str(word) for word in command], capture_output=True, text=True, timeout=300
            )
            if done.returncode != 0:
                raise RuntimeError(f"bench_mock_fleet failed:\n{done.stdout}{done.stderr}")
            figures = json.loads(done.stdout)
            return {**figures, "mib": procfs.rss_bytes(worker.pid) / 2**20}


def mock_fleet(args):
    rows = []
    for prompt, output in MOCK_LENGTHS:
        runs = [mock_figures(args, prompt, output) for _ in range(args.runs)]
        if any(run["refused"] or run["failed"] for run in runs):
            raise RuntimeError(f"requests were refused or failed: {runs}")
        cores = [run["worker_cores"] for run in runs]
        tokens = statistics.median(run["tokens_per_s"] for run in runs)
        name = f"{MOCK_WORKERS} mock workers, {MOCK_RATE} requests/s of {prompt} + {output} tokens"
        note = f"{tokens:.0f} tokens/s; runs: {min(cores):.2f} to {max(cores):.2f} cores"
        rows.append(Row(name, statistics.median(cores), "cores", target="<= 1", note=note))
        rows.append(Row("the same: memory", max(run["mib"] for run in runs), "MiB"))
    return rows


# --- one scenario with real processes, and simulated


def agreement(args):
    requests = 300 if args.quick else 3000
    workload = {
        "kind": "mooncake",
        "trace": str(trace()),
        "requests": requests,
        "spread-ties": True,
    }
    scenario = {
        "name": "simulated",
        "fleet": {"workers": AGREEING_WORKERS, "preset": PRESET},
        "router": {"policy": "least-loaded"},
        "workload": workload,
    }
    seeds = range(1, 4 if args.quick else 11)
    simulated = [json.loads(simulate(scenario, "--seed", str(seed))[0]) for seed in seeds]
    real = [run_for_real(workload, args.speedup) for _ in range(1 if args.quick else 2)]

    def sides(figure):
        ours = statistics.mean(figure(report, args.speedup) for report in real)
        model = [figure(report, 1) for report in simulated]
        return ours, statistics.mean(model), f"seeds {min(model):.4g} to {max(model):.4g}"

    bound = 20 if args.quick else 5
    rows = []
    for name in ("ttft", "itl"):
        ours, model, spread = sides(lambda report, speed: report[f"{name}_ms"]["mean"] * speed)
        note = f"real {ours:.2f} ms, simulated {model:.2f} ms ({spread}), {requests} requests"
        difference = abs(ours / model - 1) * 100
        rows.append(
            Row(
                f"{name.upper()} mean, real against simulated",
                difference,
                "%",
                target=f"<= {bound}",
                note=note,
            )
        )
    ours, model, spread = sides(lambda report, _: report["cached_ratio"])
    note = f"real {ours:.4f}, simulated {model:.4f} ({spread})"
    difference = abs(ours - model) * 100
    rows.append(
        Row("cached tokens, real against simulated", difference, "points", target="<= 2", note=note)
    )
    return rows


def run_for_real(workload, speed):
    """Frontend, workers and `stator bench` as processes, `speed` times as fast: the report."""
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        options = {
            "max_running": 256,
            "max_waiting": 1024,
            "step_tokens": 8192,
            "log_level": "warn",
        }
        workers = [
            StatorWorker(folder, f"worker-{i}", engine="mock", speedup=speed, threads=1, **options)
            for i in range(AGREEING_WORKERS)
        ]
        try:
            for worker in workers:
                worker.start()
            door = {"router_policy": "least-loaded", "router_kv_events": "false"}
            door |= {"access_log": "false", "threads": 1, "max_inflight": 4096}
            with Frontend(folder, **door) as frontend:
                frontend.wait_for_workers(AGREEING_WORKERS)
                path = pathlib.Path(folder) / "real.json"
                command = [binary(), "bench", "--url", frontend.base_url, "--api", "tokens"]
                command += [
                    "--kind",
                    workload["kind"],
                    "--trace",
                    workload["trace"],
                    "--spread-ties",
                ]
                command += ["--requests", str(workload["requests"]), "--speed", str(speed)]
                command += ["--json", str(path)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
                if done.returncode != 0:
                    raise RuntimeError(f"stator bench failed:\n{done.stdout}{done.stderr}")
                return json.loads(path.read_text())
        finally:
            for worker in workers:
                worker.stop()


PARTS = {f.__name__: f for f in (conversation, fleet_10000, repeat, mock_fleet, agreement)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--runs", type=int, help="of each quick measurement (3)")
    parser.add_argument(
        "--speedup", type=float, default=10, help="of the real run of agreement, at most 10 (10)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help="writes no result by itself"
    )
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/sim.json")
    args = parser.parse_args()
    if not 1 <= args.speedup <= 10:
        parser.error("--speedup must be from 1 to 10")
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "sim.json"
    args.runs = args.runs or (1 if args.quick else 3)
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
    return args


def main():
    args = arguments()
    rows, loads = [], {}
    for name in args.only or PARTS:
        loads[name] = round(os.getloadavg()[0], 1)
        print(f"{name} (load average {loads[name]}) …", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    if args.output is not None:
        about = {
            "preset": PRESET,
            "speedup_of_the_real_run": args.speedup,
            "load_average_before": loads,
        }
        results.write(args.output, " ".join(["./dev bench sim", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
