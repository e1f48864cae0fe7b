#!/usr/bin/env python3
"""Engines attached by URL: what the edge costs beside vllm-router, following KV events, looking after idle engines.

    STATOR_BIN=… STATOR_BUILD=… STATOR_PEERS=… bench/engines/run.py [--runs N] [--seconds S] [--only PART …]

See bench/README.md.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import procfs, results  # noqa: E402
from harness.results import Row, paired_row  # noqa: E402
from peers import frontends  # noqa: E402
from stator_process import StatorFrontend, StatorWorker  # noqa: E402

CONNECTIONS = 16
PER_REQUEST_US = 150
# Events in a segment: at most so many µs of the edge's CPU for a token.
PER_TOKEN_US = {8: 1.5, 1: 5}
SHORT, LONG = 64, 320  # tokens of an answer
IDLE_ENGINES = 10
IDLE_SECONDS = 30


class EngineServer:
    """bench_engine_server: an engine that computes nothing."""

    def __init__(self, events_per_segment):
        program = pathlib.Path(os.environ["STATOR_BUILD"]) / "bench" / "bench_engine_server"
        self.process = subprocess.Popen(
            [program, str(events_per_segment)], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())
        self.pid = self.process.pid
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def edge(folder, engine, model, name="edge"):
    return StatorWorker(
        folder,
        name,
        engine=f"vllm={engine.url}",
        model_dir=str(model),
        engine_canary="0s",
        max_running=256,
        max_waiting=4096,
    )


class Bodies:
    """The peers' requests of 1k in, with answers of another length."""

    def __init__(self, peers, folder):
        self.peers, self.folder = peers, pathlib.Path(folder)
        self.bodies = self.folder / "bodies"
        self.bodies.mkdir()
        (self.folder / "bin").symlink_to(peers.folder / "bin")
        lines = (peers.folder / "bodies" / "b.ndjson").read_text().splitlines()
        for tokens in (SHORT, LONG):
            changed = [json.dumps({**json.loads(line), "max_tokens": tokens}) for line in lines]
            (self.bodies / f"{tokens}.ndjson").write_text("\n".join(changed) + "\n")

    def load(self, port, tokens, connections, pids, seconds, **more):
        result = frontends.FrontendPeers.load(
            self, port, str(tokens), connections, pids, seconds, **more
        )
        bad = result["errors"] + result["conn_errors"] + result["timeouts"]
        if bad or not result["ok"]:
            raise RuntimeError(f"{bad} requests failed, {result['ok']} were answered")
        return result


def cpu_us(result, name):
    return 1000 * result["proc"][name]["cpu_ms_per_req"]


def overhead(args):
    peers, rows = frontends.FrontendPeers(), []
    for batch in PER_TOKEN_US:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            bodies = Bodies(peers, pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())))
            engine = stack.enter_context(EngineServer(batch))
            worker = stack.enter_context(edge(folder, engine, peers.model))
            door = stack.enter_context(StatorFrontend(folder))
            router = stack.enter_context(frontends.VllmRouter(peers, engine.port))
            frontends.wait_for_answer(door.port)
            sides = {
                "stator": (door.port, {"frontend": door.pid, "worker": worker.pid}),
                "router": (router.port, router.pids),
                "direct": (engine.port, {"engine": engine.pid}),
            }
            rows += measure(args, bodies, sides, batch)
    return rows


def measure(args, bodies, sides, batch):
    got = {}
    for turn in range(args.runs):
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for tokens in (SHORT, LONG):
            for name in order:
                port, pids = sides[name]
                got.setdefault((name, tokens), []).append(
                    bodies.load(port, tokens, CONNECTIONS, pids, args.seconds)
                )
        for name in order:
            port, pids = sides[name]
            got.setdefault((name, "ttft"), []).append(
                bodies.load(port, SHORT, 1, pids, args.seconds, quickack=True)
            )

    def cost(name, process, tokens):
        return [cpu_us(r, process) for r in got[name, tokens]]

    def per_token(name, process):
        pairs = zip(cost(name, process, SHORT), cost(name, process, LONG), strict=True)
        return [(long - short) / (LONG - SHORT) for short, long in pairs]

    what = f"{batch} events a segment" if batch > 1 else "1 event a segment"
    ours, theirs = per_token("stator", "worker"), per_token("router", "frontend")
    bases = [
        short - SHORT * slope
        for short, slope in zip(cost("stator", "worker", SHORT), ours, strict=True)
    ]
    first = {n: [r["ttft_ms"]["p50"] for r in got[n, "ttft"]] for n in sides}
    added = [a - b for a, b in zip(first["stator"], first["direct"], strict=True)]
    router_added = [a - b for a, b in zip(first["router"], first["direct"], strict=True)]
    token_row = Row(f"{what}: edge, a token", statistics.median(ours), "µs CPU")
    token_row.target = f"<= {PER_TOKEN_US[batch]}"
    token_row.note = f"{frontends.VLLM_ROUTER}: {statistics.median(theirs):.2f}"
    added_row = Row(f"{what}: TTFT p50 added, one connection", statistics.median(added), "ms")
    added_row.target = "<= 0.3"
    added_row.note = (
        f"1k in, frontend and edge; direct {statistics.median(first['direct']):.3f}; "
        f"{frontends.VLLM_ROUTER}, which reads no tokens, adds {statistics.median(router_added):.3f}"
    )
    return [
        Row(
            f"{what}: edge, a request",
            statistics.median(bases),
            "µs CPU",
            target=f"<= {PER_REQUEST_US}",
            note="1k in, without its tokens",
        ),
        token_row,
        paired_row(
            f"{what}: edge, 1k in / {SHORT} out",
            "µs CPU per request",
            cost("stator", "worker", SHORT),
            cost("router", "frontend", SHORT),
            frontends.VLLM_ROUTER,
        ),
        paired_row(
            f"{what}: frontend and edge, 1k in / {SHORT} out",
            "µs CPU per request",
            [
                a + b
                for a, b in zip(
                    cost("stator", "worker", SHORT), cost("stator", "frontend", SHORT), strict=True
                )
            ],
            cost("router", "frontend", SHORT),
            frontends.VLLM_ROUTER,
            note="with template and tokenizer, which the peer passes on to the engine",
        ),
        added_row,
    ]


def kv_events(args):
    """The room's own benchmark, by one thread."""
    program = pathlib.Path(os.environ["STATOR_BUILD"], "stator/engine/kv_feed/engine_kv_feed_bench")
    done = subprocess.run(
        [program, "--benchmark_format=json", f"--benchmark_repetitions={args.runs}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    rates = {}
    for run in json.loads(done.stdout)["benchmarks"]:
        if run.get("run_type") == "iteration" and "items_per_second" in run:
            rates.setdefault(run["name"], []).append(run["items_per_second"] / 1e6)
    return [
        Row(f"KV events, {name}", statistics.median(rate), "M blocks/s", target=">= 1.0")
        for name, rate in rates.items()
    ]


def idle(args):
    peers = frontends.FrontendPeers()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        engine = stack.enter_context(EngineServer(8))
        edges = [
            stack.enter_context(edge(folder, engine, peers.model, f"edge{i}"))
            for i in range(IDLE_ENGINES)
        ]
        time.sleep(2)

        def busy():
            threads = [t for e in edges for t in procfs.thread_cpu_ns(e.pid).values()]
            return sum(ns for _, ns in threads), sum(ns for name, ns in threads if name == "engine")

        before, start = busy(), time.monotonic()
        time.sleep(args.idle_seconds)
        seconds = (time.monotonic() - start) * IDLE_ENGINES
        whole, looks = (100 * (b - a) / 1e9 / seconds for a, b in zip(before, busy(), strict=True))
        memory = statistics.median(procfs.rss_bytes(e.pid) for e in edges) / 1e6
    return [
        Row(
            "an idle engine: health and metrics",
            looks,
            "% of a core",
            target="<= 0.01",
            note=f"a hundred are to take 1 %; of {IDLE_ENGINES} over {args.idle_seconds} s",
        ),
        Row(
            "an idle engine: the edge's process",
            whole,
            "% of a core",
            note=f"RSS {memory:.0f} MB with the tokenizer",
        ),
    ]


PARTS = {f.__name__: f for f in (overhead, kv_events, idle)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--idle-seconds", type=int, default=IDLE_SECONDS)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="writes no result")
    parser.add_argument("--output", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    for name in args.only or PARTS:
        print(f"{name} …", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    output = args.output or (None if args.only else results.RESULTS / "engines.json")
    if output is not None:
        about = {"peer": frontends.VLLM_ROUTER, "connections": CONNECTIONS}
        results.write(output, " ".join(["./dev bench engines", *sys.argv[1:]]), rows, about)
        print(f"written: {output}")


if __name__ == "__main__":
    main()
