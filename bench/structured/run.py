#!/usr/bin/env python3
"""Answers by random JSON schemas: are they valid, and what does the constraint cost?

    STATOR_BIN=… STATOR_MODEL=… bench/structured/run.py [--quick] [--count N] [--first N]

See bench/README.md.
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import stator_process  # noqa: E402
from answers import exchange  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row, paired_row  # noqa: E402
from metrics_text import Metrics  # noqa: E402
from schemas import random_schema  # noqa: E402

MODEL = "small"
AT_ONCE = 8
TOKENS = 64


def read_metrics(server):
    _, _, body = server.request("GET", "/metrics")
    return Metrics(body.decode())


def ask(server, seed):
    """One answer by a schema of its own; how it ended, and its text and schema."""
    schema = random_schema(seed)
    rng = random.Random(seed)
    answer = exchange(
        server,
        "/v1/chat/completions",
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Give me item {seed} as JSON."}],
            "max_tokens": 400,
            "temperature": rng.choice((0, 0.7, 1.0, 1.6)),
            "seed": seed,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "item", "schema": schema},
            },
        },
        timeout=300,
    )
    return {"seed": seed, "schema": schema, "answer": answer}


CUT = "cut off by max_tokens"


def verdict(one, compile_schema):
    answer = one["answer"]
    if answer.status != 200 or answer.broken or answer.error:
        return f"failed: {answer}"
    if answer.finish == "length":
        return CUT
    if answer.finish != "stop":
        return f"ended with {answer.finish}"
    try:
        compile_schema(one["schema"])(json.loads(answer.text))
    except ValueError as e:
        return f"invalid: {e}: {answer.text!r}"
    return "valid"


def validity(server, first, count):
    """`count` answers that came to their end, AT_ONCE at once; schema `first` and those that follow.
    A model may write a number without end: what max_tokens cuts off is no answer, and another schema
    is asked for instead."""
    import fastjsonschema

    before = read_metrics(server)
    start = time.monotonic()
    verdicts = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        while (missing := count - len(verdicts) + verdicts.count(CUT)) > 0:
            seeds = range(first + len(verdicts), first + len(verdicts) + missing)
            for one in pool.map(lambda seed: ask(server, seed), seeds):
                said = verdict(one, fastjsonschema.compile)
                verdicts.append(said)
                if said != "valid":
                    print(f"seed {one['seed']}: {said}", flush=True)
            if verdicts.count(CUT) > count:
                raise RuntimeError("most answers are cut off")
    seconds = time.monotonic() - start
    valid = verdicts.count("valid")
    after = read_metrics(server)

    def grown(name):
        return after.sum(name) - before.sum(name)

    tokens = grown("stator_engine_guided_tokens_total")
    guide = grown("stator_engine_guide_seconds_total")
    return [
        Row("answers by random schemas", count, "", note=f"{AT_ONCE} at once, {seconds:.0f} s"),
        Row("valid share", valid / count, "", target=">= 1.0", note=f"{valid} of {count}"),
        Row("further ones cut off by max_tokens", verdicts.count(CUT), ""),
        Row("tokens under a constraint", tokens, ""),
        Row("mask", guide / tokens * 1e6, "µs/token", target="<= 100"),
        Row(
            "mask, share of the engine's time",
            guide / (guide + grown("stator_engine_model_seconds_total")) * 100,
            "%",
        ),
    ]


def gaps(server, guided, at_once, run):
    """Median time between the pieces of streams of exactly TOKENS tokens."""
    # The constraint is one that every token obeys, so that both sides compute as many tokens.
    extra = {"guided_json": {"type": "array", "items": {"type": "integer"}, "minItems": 400}}

    def one(i):
        stamps = []
        exchange(
            server,
            "/v1/completions",
            {
                "model": MODEL,
                "prompt": f"{run} {i} Some numbers:",
                "max_tokens": TOKENS,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                **(extra if guided else {}),
            },
            lambda _: stamps.append(time.monotonic()),
            timeout=300,
        )
        return [b - a for a, b in zip(stamps, stamps[1:])]

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(one, range(at_once)))
    return statistics.median(gap for stream in found for gap in stream) * 1e3


def latency(server, pairs):
    rows = []
    for at_once in (1, AT_ONCE):
        with_it, without = [], []
        for pair in range(pairs):
            for guided in (True, False) if pair % 2 == 0 else (False, True):
                run = f"{at_once}-{pair}-{guided}"
                (with_it if guided else without).append(gaps(server, guided, at_once, run))
        rows.append(
            paired_row(
                f"ITL p50, {at_once} streams", "ms", with_it, without, "free text", "<= 1.1"
            )
        )
    return rows


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 answers: does it run at all")
    parser.add_argument("--count", type=int, help="answers (1000)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first schema (0)")
    parser.add_argument("--pairs", type=int, help="runs for ITL, by turns (5)")
    parser.add_argument("--output", type=pathlib.Path, help="default: results/structured.json")
    args = parser.parse_args()
    args.pairs = args.pairs or (1 if args.quick else 5)
    args.count = args.count or (20 if args.quick else 1000)
    if args.output is None and not args.quick:
        args.output = results.RESULTS / "structured.json"
    return args


def need_validator():
    """The package of the end-to-end tests, with the same pin."""
    try:
        import fastjsonschema  # noqa: F401
    except ImportError:
        folder = pathlib.Path(stator_process.tempfile.mkdtemp(prefix="stator-validator-"))
        pins = (HERE.parents[1] / "test" / "e2e" / "requirements.txt").read_text()
        start = pins.index("fastjsonschema==")
        wanted = folder / "requirements.txt"
        wanted.write_text(pins[start : pins.index("    # via", start)])
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps",
             "--target", str(folder), "-r", str(wanted)],
            check=True,
        )  # fmt: skip
        sys.path.append(str(folder))


def main():
    args = arguments()
    need_validator()
    options = {"threads": 1, "engine_threads": 1, "context": 16 * 1024, "max_running": 16}
    options |= {"served_model_name": MODEL, "log_level": "warn"}
    with stator_process.StatorServer(stator_process.model(), **options) as server:
        before = stator_process.resident_mib(server.process.pid)
        first = time.monotonic()
        ask(server, 10**6)
        first = time.monotonic() - first
        second = time.monotonic()
        ask(server, 10**6)
        second = time.monotonic() - second
        rows = latency(server, args.pairs)
        print(results.table(rows) + "\n", flush=True)
        rows += [Row("first constraint: made ready in", (first - second) * 1e3, "ms")]
        rows += validity(server, args.first, args.count)
        grown = stator_process.resident_mib(server.process.pid) - before
        rows += [Row("memory grown by", grown, "MiB", note="requests, cache of constraints")]
    print(results.table(rows), flush=True)
    if args.output is not None:
        about = {"model": pathlib.Path(stator_process.model()).name, "engine_threads": 1}
        command = " ".join(["./dev bench structured", *sys.argv[1:]])
        results.write(args.output, command, rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
