#!/usr/bin/env python3
"""`stator bench` against an independent generator: the same figures, and what each costs.

    STATOR_BIN=… STATOR_MODEL=… bench/generator/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import stator_process  # noqa: E402
from harness import chat_load, results  # noqa: E402
from harness.results import Row, paired_row  # noqa: E402
from peers import aiperf, llama_server  # noqa: E402

OUTPUT_TOKENS = 64
MODEL = chat_load.MODEL_NAME


def stator(*, engine, **options):
    """A server with one thread for its engine."""
    model = stator_process.model()
    options = {"threads": 1, "log_level": "warn", "max_running": 16, **options}
    if engine == "mock":
        # Words of the model's vocabulary, so that each token is a chunk.
        return stator_process.StatorServer(model, engine="mock", served_model_name=MODEL, **options)
    return stator_process.StatorServer(
        model, engine_threads=1, context=16 * 2048, served_model_name=MODEL, **options
    )


def peer_server():
    binary = llama_server.ensure_built()
    return llama_server.LlamaServer(binary, stator_process.model(), 16, 2048, 1)


# Name, server, words of a prompt, requests per second (at most half of what it can do on a core),
# requests in a run. Prompts of the mock engine are long: where a first token comes within 10 ms,
# one sees the generators' own milliseconds.
SERVERS = {
    "mock": ("Stator, mock engine", lambda: stator(engine="mock"), 2500, 4.0, 120),
    "llama": ("Stator, llama engine", lambda: stator(engine="llama"), 150, 0.8, 30),
    "llama_server": ("llama-server", peer_server, 150, 0.8, 30),
}


def prompts_of(run, count, words):
    """Texts that share no beginning, so that no prefix cache tells the runs apart."""
    return [f"{run}-{i}: {chat_load.words(f'{run}-{i}', words)}" for i in range(count)]


def stator_bench(server, prompts, rate, scratch):
    scratch = pathlib.Path(scratch)
    source, out = scratch / "prompts.jsonl", scratch / "bench.json"
    lines = [json.dumps({"prompt": p, "output_tokens": OUTPUT_TOKENS}) for p in prompts]
    source.write_text("\n".join(lines) + "\n")
    command = [stator_process.binary(), "bench", "--url", server.base_url, "--kind", "prompts"]
    command += ["--trace", str(source), "--arrivals", "constant", "--rate", str(rate)]
    command += ["--requests", str(len(prompts)), "--json", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"stator bench failed:\n{done.stdout}{done.stderr}")
    report = json.loads(out.read_text())
    return {
        "ttft": report["ttft_ms"]["mean"],
        "itl": report["itl_ms"]["mean"],
        "answered": sum(o["count"] for o in report["outcomes"] if o["outcome"] == "ok"),
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def measure(part, args):
    title, make, words, rate, count = SERVERS[part]
    if args.quick:
        count = 8
    peer_folder = aiperf.ensure_installed()
    ours, theirs = [], []
    with make() as server:
        warm_up = [chat_load.fresh_messages(f"warm-up-{i}", words) for i in range(2)]
        chat_load.run_chats(server.host, server.port, [warm_up], OUTPUT_TOKENS)
        for pair in range(args.pairs):
            # Who goes first alternates; nobody meets a prompt that was sent before.
            for side in (0, 1) if pair % 2 == 0 else (1, 0):
                prompts = prompts_of(f"{pair}-{side}", count, words)
                with tempfile.TemporaryDirectory(prefix="stator-bench-") as scratch:
                    if side == 0:
                        ours.append(stator_bench(server, prompts, rate, scratch))
                    else:
                        run = (peer_folder, server, MODEL, prompts, rate, OUTPUT_TOKENS, scratch)
                        theirs.append(aiperf.run(*run))
    for run in ours + theirs:
        if run["answered"] != count:
            raise RuntimeError(f"{run['answered']} of {count} requests were answered: {run}")
    rows = []
    for name, unit in (("ttft", "ms"), ("itl", "ms"), ("cpu", "s")):
        label = {"ttft": "TTFT mean", "itl": "ITL mean", "cpu": "CPU of the generator"}[name]
        a, b = [run[name] for run in ours], [run[name] for run in theirs]
        rows.append(paired_row(f"{title}: {label}", unit, a, b, aiperf.NAME))
        if name != "cpu":
            difference = abs(rows[-1].ratio - 1) * 100
            rows.append(Row("the same: difference", difference, "%", target="<= 5"))
    return rows


def mock(args):
    return measure("mock", args)


def llama(args):
    return measure("llama", args)


def llama_server_part(args):
    return measure("llama_server", args)


def cost(args):
    """Chunks that `stator bench` takes in per CPU second: 64 streams with a token every 2 ms."""
    model = stator_process.model()
    rates = []
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as scratch:
        steps = pathlib.Path(scratch) / "steps.yaml"
        steps.write_text("form: constant\nstep_ms: 2\n")
        options = {"mock_step_time": steps, "max_running": 64, "threads": 1, "log_level": "warn"}
        with stator_process.StatorServer(model, engine="mock", **options) as server:
            for _ in range(args.pairs):
                out = pathlib.Path(scratch) / "bench.json"
                command = [stator_process.binary(), "bench", "--url", server.base_url]
                command += [
                    "--concurrency",
                    "64",
                    "--isl",
                    "64",
                    "--osl",
                    "500",
                    "--json",
                    str(out),
                ]
                command += ["--requests", "64" if args.quick else "640"]
                subprocess.run(command, check=True, capture_output=True, timeout=600)
                facts = {f["key"]: f["value"] for f in json.loads(out.read_text())["facts"]}
                seconds, chunks = re.match(
                    r"([\d.]+) CPU s for (\d+) chunks", facts["own cost"]
                ).groups()
                rates.append(int(chunks) / float(seconds))
    note = f"{chunks} chunks in a run; runs: {min(rates):.0f} to {max(rates):.0f}"
    row = Row("stator bench: chunks per CPU second", statistics.median(rates), "chunks/s")
    row.target, row.note = ">= 20000", note
    return [row]


PARTS = {"mock": mock, "llama": llama, "llama_server": llama_server_part, "cost": cost}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--pairs", type=int, help="runs of each generator, by turns (3)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--output", type=pathlib.Path, help="default: results/generator.json")
    args = parser.parse_args()
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "generator.json"
    args.pairs = args.pairs or (1 if args.quick else 3)
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
        about = {"peer": aiperf.NAME, "server": llama_server.VERSION, "pairs": args.pairs}
        about["requests_per_second"] = {name: entry[3] for name, entry in SERVERS.items()}
        results.write(args.output, " ".join(["./dev bench generator", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
