#!/usr/bin/env python3
"""The HTTP layer alone: CPU per request, per streamed chunk, and memory, with the echo engine.

    STATOR_BIN=… bench/http/run.py [--quick]

The server runs on one core, wrk on another. See bench/README.md.
"""

import argparse
import dataclasses
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import procfs, results  # noqa: E402
from harness.results import Row  # noqa: E402
from harness.wrk import WrkLoad  # noqa: E402
from metrics_text import Metrics  # noqa: E402
from raw_http import RawConnection, post  # noqa: E402
from stator_process import StatorServer  # noqa: E402

CHAT = "/v1/chat/completions"
CONNECTIONS = 16
CHUNKS = 64
TOGETHER = 8
STEP_US = 2000
PROMPT = (
    "Stator answers with the words of this question, one byte after the other, in a circle. " * 3
)


def body(**fields):
    return {
        "model": "echo",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0,
        **fields,
    }


class EchoServer(StatorServer):
    """The server with the echo engine, on a core of its own."""

    def __init__(self, core, **options):
        super().__init__(
            prefix=["taskset", "-c", str(core)],
            engine="echo",
            threads=1,
            served_model_name="echo",
            **options,
        )

    def counters(self):
        """(CPU ns of the HTTP side, CPU ns of the engine's thread, chats answered, send()
        calls)."""
        metrics = Metrics(self.request("GET", "/metrics")[2].decode())
        http_ns = engine_ns = 0
        threads = procfs.thread_cpu_ns(self.pid)
        main_name = threads[self.pid][0]
        for thread, (name, ns) in threads.items():
            # Loops and pools have names of their own; the echo engine's thread has the program's.
            if thread != self.pid and name == main_name:
                engine_ns += ns
            else:
                http_ns += ns
        return (
            http_ns,
            engine_ns,
            metrics.sum("stator_http_requests_total", route=CHAT),
            metrics.sum("stator_http_sends_total"),
        )


class Load:
    """Per-request figures of some seconds of wrk."""

    def __init__(self, server, payload, seconds, core):
        with WrkLoad(server.base_url + CHAT, payload, CONNECTIONS, core) as load:
            load.run(1, server.log_tail)  # warm up
            before = server.counters()
            load.run(seconds, server.log_tail)
            after = server.counters()
        http_ns, engine_ns, answered, sends = (b - a for a, b in zip(before, after))
        if not answered:
            raise RuntimeError(f"no chat was answered:\n{server.log_tail()}")
        self.http_us = http_ns / answered / 1e3
        self.engine_us = engine_ns / answered / 1e3
        self.sends = sends / answered
        self.rate = answered / seconds

    @property
    def us(self):
        return self.http_us + self.engine_us


def stream_shape(server, payload):
    """(chunks with content, bytes on the wire per such chunk) of one streamed answer."""
    with RawConnection(server) as connection:
        connection.send(post(CHAT, payload))
        connection.read_until(b"\r\n\r\n")
        text = connection.read_until(b"data: [DONE]")
    chunks = text.count(b'"content":') - text.count(b'"content":""')
    return chunks, len(text) / max(1, text.count(b"data: "))


def short_requests(args, cores, **options):
    with EchoServer(cores[0], **options).start() as server:
        load = Load(server, body(max_tokens=16), args.seconds, cores[1])
        rss = procfs.rss_bytes(server.pid), procfs.peak_rss_bytes(server.pid)
    print(f"  short request {load.us:6.2f} us ({load.engine_us:.2f} of it the engine's thread),")
    print(f"                {load.rate:.0f} a second, {load.sends:.2f} send() each", flush=True)
    return load, rss


@dataclasses.dataclass
class Streamed:
    """Figures per token of a stream, without what its request and its first step cost."""

    http_us: float
    engine_us: float
    sends: float
    chunks: float
    chunk_bytes: float


def streamed(args, cores, what, choices=1, tokens_per_step=1):
    """What CHUNKS tokens more in a stream cost: in each step `choices` chunks of
    `tokens_per_step` tokens."""
    a_step = choices * tokens_per_step
    short = body(stream=True, n=choices, max_tokens=tokens_per_step)
    long = {**short, "max_tokens": tokens_per_step * (CHUNKS // a_step + 1)}
    options = {
        "echo_step_us": STEP_US,
        "echo_tokens_per_step": tokens_per_step,
        "max_running": CONNECTIONS * choices,
    }
    with EchoServer(cores[0], **options).start() as server:
        few, _ = stream_shape(server, short)
        many, chunk_bytes = stream_shape(server, long)
        first = Load(server, short, args.seconds, cores[1])
        whole = Load(server, long, args.seconds, cores[1])
    out = Streamed(
        http_us=(whole.http_us - first.http_us) / CHUNKS,
        engine_us=(whole.engine_us - first.engine_us) / CHUNKS,
        sends=(whole.sends - first.sends) / CHUNKS,
        chunks=(many - few) / CHUNKS,
        chunk_bytes=chunk_bytes,
    )
    print(
        f"  {what}, a token: {out.http_us:.2f} us on the HTTP side, {out.engine_us:.2f} us in the"
        f" engine's thread, {out.sends:.3f} send(), {out.chunks:.3f} chunks of"
        f" {chunk_bytes:.0f} bytes",
        flush=True,
    )
    return out


def build_send_cost(folder):
    program = folder / "send_cost"
    source = HERE / "send_cost.cc"
    subprocess.run(["clang++-19", "-O2", "-std=c++23", str(source), "-o", str(program)], check=True)
    return program


def send_cost_us(program, size, args, cores):
    """Median over runs of the CPU of one send() of `size` bytes, paced as the streams are."""
    rounds = str(args.seconds * 1_000_000 // STEP_US)
    command = [str(program), str(round(size)), str(CONNECTIONS), rounds, str(STEP_US)]
    command += [str(core) for core in cores]
    runs = [
        int(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
        for _ in range(3)
    ]
    return statistics.median(runs) / 1e3


def measure(args, cores, folder):
    program = build_send_cost(folder)
    short, (rss, peak) = short_requests(args, cores)
    quiet, _ = short_requests(args, cores, access_log="false")
    single = streamed(args, cores, "one chunk a step")
    one_send = send_cost_us(program, single.chunk_bytes, args, cores)
    together = streamed(args, cores, f"{TOGETHER} chunks a step", choices=TOGETHER)
    big_send = send_cost_us(program, together.chunk_bytes * TOGETHER, args, cores)
    merged = streamed(args, cores, f"{TOGETHER} tokens a step", tokens_per_step=TOGETHER)
    print(
        f"  bare send(): {one_send:.2f} us of one chunk, {big_send:.2f} us of {TOGETHER}",
        flush=True,
    )
    mib = 2**20
    bare = "bare send()"
    return [
        Row("short request", short.us, "us CPU", target="<= 25"),
        Row("short request, without access log", quiet.us, "us CPU"),
        Row("streamed chunk beyond its send()", single.http_us - one_send, "us CPU", target="<= 1"),
        Row(
            "streamed chunk in all",
            single.http_us,
            "us CPU",
            bare,
            one_send,
            single.http_us / one_send,
        ),
        Row("send() per chunk", single.sends, "calls"),
        Row(
            f"streamed chunk, {TOGETHER} ready together, in all",
            together.http_us,
            "us CPU",
            target="<= 2",
            note=f"one bare send() of {TOGETHER} chunks: {big_send:.2f} us CPU",
        ),
        Row(f"send() per chunk, {TOGETHER} ready together", together.sends, "calls"),
        Row(
            f"streamed token, {TOGETHER} in a step of one sequence",
            merged.http_us,
            "us CPU",
            note=f"{merged.chunks:.3f} chunks and {merged.sends:.3f} send() a token",
        ),
        Row("RSS without a model", rss / mib, "MiB", target="<= 60"),
        Row("peak RSS without a model", peak / mib, "MiB"),
    ]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one second each: does it run at all")
    parser.add_argument("--seconds", type=int, default=4, help="of load per measurement")
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/http.json")
    args = parser.parse_args()
    if args.quick:
        args.seconds = 1
    if args.output is None and not args.quick:
        args.output = results.RESULTS / "http.json"
    return args


def main():
    args = arguments()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("this benchmark needs two cores: one for the server, one for the clients")
    for program, package in [("wrk", "wrk"), ("clang++-19", "clang-19"), ("taskset", "util-linux")]:
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder:
        rows = measure(args, cores, pathlib.Path(folder))
    print("\n" + results.table(rows))
    if args.output is not None:
        about = {
            "connections": CONNECTIONS,
            "seconds_per_measurement": args.seconds,
            "streams": f"{CHUNKS} tokens, one step every {STEP_US} us",
            "clients": "wrk, one thread, on the other core",
        }
        results.write(args.output, " ".join(["./dev bench http", *sys.argv[1:]]), rows, about)
        print(f"\nwritten: {args.output}")


if __name__ == "__main__":
    main()
