#!/usr/bin/env python3
"""Stator against llama.cpp's own llama-server: same model file, same threads, same chats, in one
run, by turns.

    STATOR_BIN=… STATOR_MODEL=… bench/engine/run.py [--quick]

See bench/README.md for what is measured and how to read the result.
"""

import argparse
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import stator_process  # noqa: E402
from harness import chat_load, procfs, results  # noqa: E402
from harness.results import Row, paired_row  # noqa: E402
from peers import llama_server  # noqa: E402

CONTEXT = 2048
SLOTS = 16
THREADS = 1
PROMPT_WORDS = 170
FIRST_TURN_WORDS = 1400
# Chats that each client has in one round: enough of them to fill some seconds.
CHATS_EACH = {1: 4, 4: 2, 8: 2, 16: 2}
THROUGHPUT_TARGET = {1: ">= 1.0", 4: ">= 0.95", 8: ">= 0.95", 16: ">= 1.0"}


class Round:
    """What one server did with one set of chats."""

    def __init__(self, server, chats, max_tokens):
        before = self._counters(server)
        started = time.perf_counter()
        client_cpu = time.process_time()
        done = chat_load.run_chats(server.host, server.port, chats, max_tokens)
        self.wall = time.perf_counter() - started
        self.client_cpu = time.process_time() - client_cpu
        after = self._counters(server)
        self.results = done
        self.output_tokens = sum(r.output_tokens for r in done)
        self.prompt_tokens = sum(r.prompt_tokens for r in done)
        self.cached_tokens = sum(r.cached_tokens for r in done)
        self.cpu = after["cpu"] - before["cpu"]
        self.model_cpu = after["model_cpu"] - before["model_cpu"]
        busy = after["busy"] - before["busy"]
        self.others_share = max(0.0, busy - self.cpu - self.client_cpu) / (
            self.wall * procfs.cores()
        )
        if self.output_tokens != max_tokens * len(done):
            raise RuntimeError(
                f"{server.name} sent {self.output_tokens} tokens, not {max_tokens * len(done)}"
            )

    @staticmethod
    def _counters(server):
        return {
            "cpu": procfs.cpu_seconds(server.pid),
            "busy": procfs.machine_busy_seconds(),
            "model_cpu": model_cpu_seconds(server),
        }

    @property
    def tokens_per_second(self):
        return self.output_tokens / self.wall

    @property
    def cpu_ms_per_token(self):
        return self.cpu / self.output_tokens * 1e3

    @property
    def cpu_outside_model_percent(self):
        return (self.cpu - self.model_cpu) / self.cpu * 100

    def ttft_ms(self, quantile):
        return _quantile([r.ttft for r in self.results], quantile) * 1e3

    def itl_ms(self):
        return _quantile([gap for r in self.results for gap in r.gaps], 0.5) * 1e3


def _quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(q * (len(ordered) - 1)))]


def model_cpu_seconds(server):
    """CPU that Stator spent inside the model, from its own counter; 0 for the peer, which does
    not tell."""
    if not isinstance(server, stator_process.StatorServer):
        return 0.0
    _, _, body = server.request("GET", "/metrics")
    for line in body.decode().splitlines():
        if line.startswith("stator_engine_model_cpu_seconds_total"):
            return float(line.split()[-1])
    raise RuntimeError("/metrics has no stator_engine_model_cpu_seconds_total")


def chats_for(clients, pair):
    """Distinct chats, the same for both sides of a pair: nothing in them was seen before by
    either server."""
    return [
        [
            chat_load.fresh_messages(f"{pair}-{clients}-{client}-{turn} note", PROMPT_WORDS)
            for turn in range(CHATS_EACH[clients])
        ]
        for client in range(clients)
    ]


def run_pairs(servers, clients, pairs, max_tokens):
    """Rounds per server; who goes first changes from pair to pair."""
    rounds = {server.name: [] for server in servers}
    for pair in range(pairs):
        order = servers if pair % 2 == 0 else servers[::-1]
        for server in order:
            done = Round(server, chats_for(clients, pair), max_tokens)
            rounds[server.name].append(done)
            print(
                f"  {clients:2} chats, pair {pair + 1}/{pairs}, {server.name:12}"
                f" {done.tokens_per_second:6.1f} tok/s  ttft p50 {done.ttft_ms(0.5):6.0f} ms"
                f"  itl p50 {done.itl_ms():5.1f} ms  cpu {done.cpu_ms_per_token:5.2f} ms/tok"
                f"  others {done.others_share * 100:3.0f} %",
                flush=True,
            )
    return rounds


def rows_for(clients, ours, theirs, peer):
    at = f"{clients} chats"

    def row(name, unit, read, target=None):
        return paired_row(
            f"{name}, {at}", unit, [read(r) for r in ours], [read(r) for r in theirs], peer, target
        )

    return [
        row("output", "tok/s", lambda r: r.tokens_per_second, THROUGHPUT_TARGET[clients]),
        row("TTFT p50", "ms", lambda r: r.ttft_ms(0.5), "<= 1.0"),
        row("TTFT p90", "ms", lambda r: r.ttft_ms(0.9)),
        row("ITL p50", "ms", lambda r: r.itl_ms()),
        row("CPU per output token", "ms", lambda r: r.cpu_ms_per_token),
        Row(
            f"CPU outside the model, {at}",
            statistics.median(r.cpu_outside_model_percent for r in ours),
            "%",
            target="<= 3",
        ),
    ]


def second_turn(server, tries, max_tokens):
    """TTFT of the second turn of a long chat, and of the same turn where nothing can be reused,
    by turns."""
    reused, fresh = [], []
    for attempt in range(tries):
        chat = chat_load.fresh_messages(f"long {attempt} note", FIRST_TURN_WORDS)
        (first,) = chat_load.run_chats(server.host, server.port, [[chat]], max_tokens)
        chat = chat + [
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": "Now say the same in one short sentence."},
        ]
        other = [{**chat[0], "content": f"Unseen {attempt}. {chat[0]['content']}"}, *chat[1:]]
        for messages, into in [(chat, reused), (other, fresh)][:: 1 if attempt % 2 == 0 else -1]:
            into += chat_load.run_chats(server.host, server.port, [[messages]], max_tokens)
        print(
            f"  second turn {attempt + 1}/{tries}, {server.name:12}"
            f" reused {reused[-1].ttft * 1e3:6.0f} ms"
            f" ({reused[-1].cached_tokens} of {reused[-1].prompt_tokens} tokens cached),"
            f" without {fresh[-1].ttft * 1e3:6.0f} ms ({fresh[-1].cached_tokens} cached)",
            flush=True,
        )
    return reused, fresh


def second_turn_rows(servers, tries):
    (ours, theirs) = [second_turn(server, tries, 32) for server in servers]
    speedup = [[f.ttft / r.ttft for r, f in zip(reused, fresh)] for reused, fresh in (ours, theirs)]
    peer = servers[1].name

    def median_ms(chats):
        return statistics.median(c.ttft for c in chats) * 1e3

    note = "ratio: without reuse / with reuse, Stator alone"
    return [
        Row(
            "second turn, TTFT with reuse",
            median_ms(ours[0]),
            "ms",
            "the same turn without reuse",
            median_ms(ours[1]),
            statistics.median(speedup[0]),
            ">= 3",
            speedup[0],
            note,
        ),
        paired_row(
            "second turn, TTFT with reuse, both",
            "ms",
            [r.ttft * 1e3 for r in ours[0]],
            [r.ttft * 1e3 for r in theirs[0]],
            peer,
        ),
        Row(
            "second turn, cached tokens",
            statistics.median(r.cached_tokens for r in ours[0]),
            f"of {statistics.median(r.prompt_tokens for r in ours[0]):.0f}",
            peer,
            statistics.median(r.cached_tokens for r in theirs[0]),
        ),
    ]


def peak_rows(servers):
    ours, theirs = (procfs.peak_rss_bytes(server.pid) / 2**20 for server in servers)
    return [Row("peak RSS", ours, "MiB", servers[1].name, theirs, ours / theirs)]


def measure(servers, args):
    for server in servers:  # touch the weights once
        chat_load.run_chats(server.host, server.port, [[chat_load.fresh_messages("warm", 50)]], 8)
    rows, rounds = [], []
    for clients in args.clients:
        done = run_pairs(servers, clients, args.pairs, args.max_tokens)
        ours, theirs = (done[server.name] for server in servers)
        if ours[0].prompt_tokens != theirs[0].prompt_tokens:
            print(f"  warning: {ours[0].prompt_tokens} and {theirs[0].prompt_tokens} prompt tokens")
        rows += rows_for(clients, ours, theirs, servers[1].name)
        rounds += ours + theirs
    rows += second_turn_rows(servers, args.pairs)
    return rows + peak_rows(servers), rounds


def about(args, rounds):
    others = statistics.median(r.others_share for r in rounds) * 100
    client = sum(r.client_cpu for r in rounds) / sum(r.wall for r in rounds) * 100
    return {
        "peer": llama_server.VERSION
        + " llama-server, built from its source package with our flags",
        "model": pathlib.Path(stator_process.model()).name,
        "engine_threads": THREADS,
        "context_per_sequence": CONTEXT,
        "sequences": SLOTS,
        "prompt_tokens_per_chat": rounds[0].prompt_tokens // len(rounds[0].results),
        "output_tokens_per_chat": args.max_tokens,
        "pairs": args.pairs,
        "cpu_of_other_processes_percent_median": round(others, 1),
        "cpu_of_load_generator_percent": round(client, 1),
    }


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short pair: does it run at all")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=list(CHATS_EACH), choices=CHATS_EACH
    )
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/engine.json")
    args = parser.parse_args()
    if args.quick:
        args.pairs, args.clients, args.max_tokens = 1, [1, 4], 24
    if args.output is None and not args.quick:
        args.output = results.RESULTS / "engine.json"
    return args


def main():
    args = arguments()
    model = stator_process.model()
    binary = llama_server.ensure_built()
    ours = stator_process.StatorServer(
        model,
        engine_threads=THREADS,
        threads=1,
        context=SLOTS * CONTEXT,
        max_sequence=CONTEXT,
        max_running=SLOTS,
        served_model_name=chat_load.MODEL_NAME,
        log_level="warn",
    )
    theirs = llama_server.LlamaServer(binary, model, SLOTS, CONTEXT, THREADS)
    with ours.start(), theirs.start():
        rows, rounds = measure([ours, theirs], args)
    print("\n" + results.table(rows))
    if args.output is not None:
        command = " ".join(["./dev bench engine", *sys.argv[1:]])
        results.write(args.output, command, rows, about(args, rounds))
        print(f"\nwritten: {args.output}")


if __name__ == "__main__":
    main()
