#!/usr/bin/env python3
"""The planes between processes: request plane, event plane, requests, idle workers, failover.

    STATOR_BIN=… STATOR_BUILD=… bench/planes/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import chat_load, procfs, results  # noqa: E402
from harness.fleet import Frontend, ManyWorkers, Worker, meeting_place  # noqa: E402
from harness.results import Row, paired_row  # noqa: E402
from harness.wrk import WrkLoad  # noqa: E402
from metrics_text import Metrics  # noqa: E402
from stator_process import StatorServer  # noqa: E402

CHAT = "/v1/chat/completions"
MODEL = chat_load.MODEL_NAME
CONNECTIONS = 16
IDLE_WORKERS = 200
STREAMS = 8
STEP_US = 5000
# The requests of bench/http.
PROMPT = (
    "Stator answers with the words of this question, one byte after the other, in a circle. " * 3
)
SHORT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0,
    "max_tokens": 16,
}


def folder():
    """Where processes meet. Its path is short: that of a Unix socket must be."""
    return tempfile.TemporaryDirectory(prefix="stator-bench-", dir="/tmp")


# --- programs that measure themselves


def real_time():
    """What runs a program before everything else on the machine, where the kernel allows it."""
    prefix = ["chrt", "--fifo", "10"]
    allowed = shutil.which("chrt") and subprocess.run([*prefix, "true"], capture_output=True)
    return prefix if allowed and allowed.returncode == 0 else []


def program_rows(args, name, arguments=(), at_least=(), prefix=()):
    """Runs a program that prints a line of JSON per figure, some times; a row per figure, with the
    medians. Targets are upper bounds but for the figures in `at_least`."""
    runs = []
    for _ in range(args.runs):
        command = [*prefix, str(args.build / "bench" / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines or done.returncode not in (0, 1):  # 1: a target was missed
            raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")
        runs.append({(f := json.loads(line))["name"]: f for line in lines})
    rows = []
    for figure in runs[0]:
        first = runs[0][figure]
        values = [run[figure]["value"] for run in runs]
        relation = ">=" if figure in at_least else "<="
        target = None if first["target"] is None else f"{relation} {first['target']:g}"
        note = f"runs: {min(values):.4g} to {max(values):.4g}" if len(values) > 1 else None
        rows.append(
            Row(figure, statistics.median(values), first["unit"], target=target, note=note)
        )
    print(results.table(rows) + "\n", flush=True)
    return rows


def request_plane(args):
    return program_rows(args, "bench_request_plane", [str(args.seconds)], prefix=real_time())


def event_plane(args):
    return program_rows(args, "bench_event_plane", at_least=("event_rate",))


# --- short requests


class InProcess(StatorServer):
    """The same without a plane: frontend and engine in one process."""

    def __init__(self, core, **options):
        super().__init__(
            prefix=["taskset", "-c", str(core)],
            engine="echo",
            threads=1,
            served_model_name=MODEL,
            **options,
        )


def answered(server):
    metrics = Metrics(server.request("GET", "/metrics")[2].decode())
    return metrics.sum("stator_http_requests_total", route=CHAT)


def cpu_ns(server):
    return sum(ns for _, ns in procfs.thread_cpu_ns(server.pid).values())


def us_per_request(args, server, core, processes):
    """CPU of each of the processes per answered request."""
    with WrkLoad(server.base_url + CHAT, SHORT, CONNECTIONS, core) as load:
        load.run(1, server.log_tail)  # warm up
        first, before = answered(server), [cpu_ns(p) for p in processes]
        load.run(args.seconds, server.log_tail)
        last, after = answered(server), [cpu_ns(p) for p in processes]
    return [(b - a) / (last - first) / 1e3 for a, b in zip(before, after)]


def through_processes(args, link, access_log):
    """(us in the frontend, us in the worker) of a request; the frontend has a core of its own."""
    front, other = args.cores
    with folder() as meeting:
        options = {"prefix": ["taskset", "-c", str(other)], "served_model_name": MODEL}
        with Worker(meeting, "echo", link, **options) as worker:
            taskset = ["taskset", "-c", str(front)]
            with Frontend(meeting, prefix=taskset, threads=1, access_log=access_log) as server:
                return us_per_request(args, server, other, [server, worker])


def in_process(args, access_log):
    with InProcess(args.cores[0], access_log=access_log) as server:
        return us_per_request(args, server, args.cores[1], [server])[0]


def short_requests(args):
    rows = []
    for access_log in ("true", "false"):
        log = "" if access_log == "true" else ", without access log"
        alone, front, behind = [], {"unix": [], "tcp": []}, {"unix": [], "tcp": []}
        for _ in range(args.runs):
            alone.append(in_process(args, access_log))
            for link in ("unix", "tcp"):
                a, b = through_processes(args, link, access_log)
                front[link].append(a)
                behind[link].append(b)
        for link, kind in (("unix", "Unix socket"), ("tcp", "TCP")):
            name = f"short request by {kind}{log}"
            median = statistics.median(front[link])
            rows += [
                Row(f"{name}: frontend", median, "us CPU", target="<= 60"),
                paired_row(
                    f"{name}: frontend against all in one process",
                    "us CPU",
                    front[link],
                    alone,
                    "stator serve --engine echo",
                ),
                Row(f"{name}: worker", statistics.median(behind[link]), "us CPU"),
            ]
    print(results.table(rows) + "\n", flush=True)
    return rows


# --- idle workers


def idle_frontend(args, count, link):
    """(percent of a core, MiB) of a frontend with so many workers that have nothing to do."""
    with folder() as meeting:
        program = str(args.build / "bench" / "bench_many_workers")
        place = meeting_place(meeting)
        place.mkdir(mode=0o700, parents=True)
        place.parent.chmod(0o700)
        with ManyWorkers(program, count, place, link):
            with Frontend(meeting, threads=1) as server:
                server.wait_for_workers(count)
                time.sleep(min(3, args.idle_seconds))
                start, before = time.monotonic(), cpu_ns(server)
                time.sleep(args.idle_seconds)
                share = (cpu_ns(server) - before) / 1e7 / (time.monotonic() - start)
                if server.ready_workers() != count:
                    raise RuntimeError(f"workers were lost:\n{server.log_tail()}")
                return share, procfs.rss_bytes(server.pid) / 2**20


def idle_workers(args):
    _, base = idle_frontend(args, 1, "unix")
    rows = []
    for link, kind in (("unix", "Unix sockets"), ("tcp", "TCP")):
        share, rss = idle_frontend(args, IDLE_WORKERS, link)
        name = f"frontend with {IDLE_WORKERS} idle workers by {kind}"
        rows.append(Row(name, share, "% of a core", target="<= 1"))
        rows.append(Row(f"{name}: RSS", rss, "MiB", note=f"{base:.1f} MiB with one worker"))
    print(results.table(rows) + "\n", flush=True)
    return rows


# --- failover


async def stream_times(server):
    chat = await chat_load.stream_chat(
        server.host, server.port, SHORT["messages"], 400, ignore_eos=True
    )
    times = [chat.first]
    for gap in chat.gaps:
        times.append(times[-1] + gap)
    return times, chat.text


async def kill_under_streams(server, first, second):
    """All streams run at `first`; it is killed when `second` is there. Seconds from the kill to
    the next token of each stream."""
    streams = [asyncio.create_task(stream_times(server)) for _ in range(STREAMS)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(second.start)
    await asyncio.to_thread(server.wait_for_workers, 2)
    # Stopped for a moment first, so that all it has sent is here: what comes later is not its.
    os.kill(first.pid, signal.SIGSTOP)
    await asyncio.sleep(0.1)
    killed = time.perf_counter()
    os.kill(first.pid, signal.SIGKILL)
    waits, texts = [], set()
    for task in streams:
        times, text = await task
        texts.add(text)
        waits.append(min(t for t in times if t > killed) - killed)
    if len(texts) != 1:
        raise RuntimeError("streams of one prompt differ after the failover")
    return waits


def failover(args):
    waits = []
    for _ in range(3 * args.runs):
        with folder() as meeting:
            options = {"served_model_name": MODEL, "echo_step_us": STEP_US}
            second = Worker(meeting, "second", **options)
            with Worker(meeting, "first", **options) as first, Frontend(meeting) as server:
                try:
                    waits += asyncio.run(kill_under_streams(server, first, second))
                finally:
                    second.stop()
    note = f"{STREAMS} streams each in {3 * args.runs} runs; a step takes {STEP_US / 1000:g} ms"
    rows = [
        Row("from kill -9 to the next token, p50", statistics.median(waits) * 1e3, "ms", note=note),
        Row("from kill -9 to the next token, max", max(waits) * 1e3, "ms"),
    ]
    print(results.table(rows) + "\n", flush=True)
    return rows


# --- all of it

PARTS = {
    "request_plane": request_plane,
    "event_plane": event_plane,
    "short_requests": short_requests,
    "idle_workers": idle_workers,
    "failover": failover,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--seconds", type=int, default=3, help="of load per measurement")
    parser.add_argument("--idle-seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="writes no result by itself")
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/planes.json")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.idle_seconds, args.runs = 1, 3, 1
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "planes.json"
    if "STATOR_BUILD" not in os.environ:
        parser.error("STATOR_BUILD is not set: give the folder of the release build")
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
    args.cores = sorted(os.sched_getaffinity(0))[:2]
    if len(args.cores) < 2:
        parser.error("this benchmark needs two cores: one for the frontend, one for the others")
    return args


def main():
    args = arguments()
    for program, package in [("wrk", "wrk"), ("taskset", "util-linux")]:
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {package}")
    loads, rows = [], []
    for name in args.only or PARTS:
        loads.append(round(os.getloadavg()[0], 1))
        print(f"{name} (load average {loads[-1]}):", flush=True)
        rows += PARTS[name](args)
    if args.output is not None:
        about = {
            "runs": args.runs,
            "seconds_per_measurement": args.seconds,
            "idle_seconds": args.idle_seconds,
            "short_requests": f"wrk, {CONNECTIONS} connections, on the other core with the worker;"
            " nothing is taken off for the byte tokenizer",
            "request_plane": " ".join(real_time()) or "at the usual priority",
            "load_average_before_each_part": loads,
        }
        results.write(args.output, " ".join(["./dev bench planes", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
