#!/usr/bin/env python3
"""The simulator's speed and truth, and a fleet of mock engines in one process.

    STATOR_BIN=… STATOR_BUILD=… STATOR_DATA=… bench/sim/run.py [--quick] [--only PART …]

Parts: conversation (an hour of a public trace on 64 workers), fleet_10000 (a million requests), repeat (one seed, one
report), mock_fleet (256 workers in one process), agreement (one scenario with real processes and simulated).
"""

import argparse
import json
import os
import pathlib

import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "test" / "support")]

from harness import fleet, procfs, results  # noqa: E402
from harness.results import Row  # noqa: E402
from stator_process import StatorWorker  # noqa: E402

TRACE = "mooncake_conversation.jsonl"
PRESET = "llama-3.1-8b-fp8-h100"
LIMITS = {"max_running": 256, "max_waiting": 1024, "step_tokens": 8192}


def binary():
    return os.environ["STATOR_BIN"]


def trace():
    folder = os.environ.get("STATOR_DATA")
    path = pathlib.Path(folder) / TRACE if folder else None
    if path is None or not path.is_file():
        sys.exit(f"$STATOR_DATA names no folder with {TRACE}: it is in Mooncake's FAST'25 trace release")
    return path


def simulate(scenario, folder, *arguments):
    """Runs a scenario (YAML text, or a dictionary): its report, CPU seconds, wall seconds and peak memory in bytes."""
    path = pathlib.Path(folder) / "scenario.yaml"
    path.write_text(json.dumps(scenario))  # JSON is YAML
    begin = time.monotonic()
    child = subprocess.Popen(
        [binary(), "sim", str(path), "--json", *arguments], stdout=subprocess.PIPE, text=True
    )
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"stator sim ended with {child.returncode}")
    wall = time.monotonic() - begin
    return text, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024


def conversation(args):
    """64 workers, the whole conversation trace."""
    scenario = {
        "name": "conversation",
        "fleet": {"workers": 64, "preset": PRESET},
        "workload": {"kind": "mooncake", "trace": str(trace())},
    }
    if args.quick:
        scenario["workload"]["requests"] = 500
    cpu, wall, memory = [], [], []
    for _ in range(1 if args.quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            text, c, w, m = simulate(scenario, folder)
        cpu.append(c), wall.append(w), memory.append(m)
    report = json.loads(text)
    ok = {o["outcome"]: o["count"] for o in report["outcomes"]}
    note = f"{ok.get('ok', 0)} requests, {report['output_tokens']} tokens; wall {min(wall):.2f} to {max(wall):.2f} s"
    return [
        Row("conversation.cpu", sorted(cpu)[len(cpu) // 2], "s", target="<= 10", note=note),
        Row("conversation.memory", max(memory) / 2**20, "MiB"),
    ]


def fleet_10000(args):
    """10,000 workers of 4,096 blocks, an hour of a million requests."""
    requests = 10_000 if args.quick else 1_000_000
    scenario = {
        "name": "ten thousand workers",
        "fleet": {"workers": 10_000, "preset": PRESET, "blocks": 4096, "block_tokens": 16},
        "workload": {
            "kind": "shared-prefix",
            "rate": 1e6 / 3600,
            "requests": requests,
            "isl": 2000,
            "prefix": 1000,
            "groups": 5000,
            "osl": 200,
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        _, cpu, wall, memory = simulate(scenario, folder)
    return [
        Row("fleet_10000.wall", wall, "s", target="<= 600", note="one thread"),
        Row("fleet_10000.cpu", cpu, "s"),
        Row("fleet_10000.memory", memory / 2**30, "GiB", target="<= 8"),
    ]


def repeat(args):
    """The same seed twice, byte for byte."""
    scenario = {
        "name": "repeat",
        "fleet": {"workers": 8, "preset": PRESET, "noise": 0.1, "blocks": 2000},
        "router": {"policy": "random"},
        "faults": "worker=3:crash@40s",
        "workload": {"kind": "chat", "rate": 6, "requests": 2000, "turns": 4},
    }
    texts = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            texts.append(simulate(scenario, folder, "--seed", "5")[0])
    same = texts[0] == texts[1]
    return [Row("repeat.identical", float(same), "1 = to the byte", target=">= 1")]


def mock_worker(folder, name, **options):
    return StatorWorker(folder, name, engine="mock", access_log=False, **LIMITS, **options)


def mock_fleet(args):
    """256 workers in one process, 2,000 requests a second."""
    count, seconds = (16, 3) if args.quick else (256, 20)
    rate = 2000 * count // 256
    with tempfile.TemporaryDirectory() as folder:
        with mock_worker(folder, "gpu", count=count, threads=1) as worker:
            time.sleep(2)
            memory = procfs._status_kb(worker.process.pid, "VmRSS") * 1024
            out = subprocess.run(
                [
                    *(str(args.build / "bench" / "bench_mock_fleet"), str(fleet.meeting_place(folder))),
                    *("gpu", str(count), str(worker.process.pid), str(rate), str(seconds), "1000", "50"),
                ],
                check=True,
                capture_output=True,
                text=True,
            )
    figures = json.loads(out.stdout)
    note = json.dumps(figures)
    return [
        Row("mock_fleet.cores", figures["cores"], "cores", target="<= 1", note=note),
        Row("mock_fleet.memory_idle", memory / 2**20, "MiB"),
    ]


def agreement(args):
    """Four workers, a slice of the conversation trace: real processes at ten times the speed, and simulated."""
    requests = 150 if args.quick else 1500
    speed = args.speedup
    with tempfile.TemporaryDirectory() as folder:
        real = run_for_real(folder, requests, speed)
        text, *_ = simulate(
            {
                "name": "simulated",
                "fleet": {"workers": 4, "preset": PRESET},
                "workload": {"kind": "mooncake", "trace": str(trace()), "requests": requests},
            },
            folder,
        )
    simulated = json.loads(text)
    bound = 20 if args.quick else 5
    rows = []
    for name in ("ttft", "itl"):
        ours = real[f"{name}_ms"]["mean"] * speed
        theirs = simulated[f"{name}_ms"]["mean"]
        rows.append(
            Row(f"agreement.{name}_mean_difference", abs(ours / theirs - 1) * 100, "%", target=f"<= {bound}",
                note=f"real {ours:.2f} ms, simulated {theirs:.2f} ms, {requests} requests")
        )
    rows.append(
        Row("agreement.cached_ratio_difference", abs(real["cached_ratio"] - simulated["cached_ratio"]) * 100,
            "points", target="<= 2",
            note=f"real {real['cached_ratio']:.4f}, simulated {simulated['cached_ratio']:.4f}")
    )
    return rows


def run_for_real(folder, requests, speed):
    workers = [mock_worker(folder, f"worker-{i}", speedup=speed, threads=1) for i in range(4)]
    try:
        for worker in workers:
            worker.start()
        with fleet.Frontend(folder, access_log=False, threads=1, max_inflight=4096) as frontend:
            frontend.wait_for_workers(4)
            path = pathlib.Path(folder) / "real.json"
            subprocess.run(
                [
                    *(binary(), "bench", "--url", f"http://{frontend.host}:{frontend.port}", "--api", "tokens", "--kind", "mooncake"),
                    *("--trace", str(trace()), "--requests", str(requests), "--speed", str(speed)),
                    *("--json", str(path)),
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            return json.loads(path.read_text())
    finally:
        for worker in workers:
            worker.stop()


PARTS = {f.__name__: f for f in (conversation, fleet_10000, repeat, mock_fleet, agreement)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--speedup", type=float, default=10, help="of the real run in agreement; at most 10")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="writes no result by itself")
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/sim.json")
    args = parser.parse_args()
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "sim.json"
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
    return args


def main():
    args = arguments()
    rows, loads = [], []
    for name in args.only or PARTS:
        loads.append(round(os.getloadavg()[0], 1))
        print(f"{name} (load average {loads[-1]}) …", flush=True)
        part = PARTS[name](args)
        print(results.table(part), flush=True)
        rows += part
    if args.output is not None:
        about = {
            "preset": PRESET,
            "speedup_of_the_real_run": args.speedup,
            "load_average_before_each_part": loads,
        }
        results.write(args.output, " ".join(["./dev bench sim", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
