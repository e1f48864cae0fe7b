#!/usr/bin/env python3
"""Handoffs between two processes: shared memory against memcpy, TCP against iperf3, NIXL against its bare C interface; KV between engines.

    STATOR_BIN=… STATOR_BUILD=… STATOR_MODEL=… [STATOR_NIXL=…] [STATOR_PEERS=…] bench/transfer/run.py [--quick]

See bench/README.md.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parent.parent / "test" / "support"))

import stator_process  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row, paired_row  # noqa: E402

BIG = 64 << 20
# KV of 1,000 tokens of a small model, and a picture's embeddings.
SIZES = {"23.6 MB": 23_592_960, "147 KB": 147_456}


def bench(args, method, *more, size=BIG):
    """What `stator bench transfer` measures by this way, and a memcpy of as many bytes."""
    command = [stator_process.binary(), "bench", "transfer", "--transfer", method]
    command += ["--bytes", str(size), "--handoffs", str(args.handoffs), "--json", "-", *more]
    environment = stator_process.child_environment()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
    rows = {row["method"]: row for row in json.loads(done.stdout)["rows"]}
    return rows[method], rows["memcpy"]


def iperf(args):
    """GB/s of one stream over loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = subprocess.Popen(["iperf3", "-s", "-1", "-p", port], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        command = ["iperf3", "-c", "127.0.0.1", "-p", port, "-t", str(args.seconds), "-J"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 8e9
    finally:
        server.kill()
        server.wait()


def bare_nixl(args, library, program):
    """GB/s of writes by the C interface alone."""
    command = [program, library, str(BIG), str(args.handoffs + 1), "write", "1", "UCX"]
    # Its memory in huge pages, as ours is.
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    found = re.search(r"mean \S+ ms \((\S+) GB/s\)", done.stdout)
    if not found:
        raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
    return float(found[1])


def costs(name, runs):
    """CPU and memory of a big handoff."""

    def middle(figure):
        return statistics.median(run[figure] for run in runs)

    consumer, producer = middle("cpu_seconds_consumer"), middle("cpu_seconds_producer")
    note = f"consumer {consumer * 1e3:.3g}, producer {producer * 1e3:.3g}; "
    note += "without writing and reading the bytes"
    memory = [middle(f"resident_bytes_{side}") / 2**20 for side in ("consumer", "producer")]
    rss = f"consumer {memory[0]:.0f}, producer {memory[1]:.0f}; the program itself included"
    return [
        Row(f"{name}: CPU of both per 64 MiB", (consumer + producer) * 1e3, "ms CPU", note=note),
        Row(f"{name}: RSS of both", sum(memory), "MiB", note=rss),
    ]


def shared_memory(args):
    ours, theirs, runs = [], [], []
    for _ in range(args.runs):
        run, copy = bench(args, "shm")
        runs.append(run)
        ours.append(run["gb_per_second_read"])
        theirs.append(copy["gb_per_second_read"])
    row = paired_row(
        "shm: claim and read every byte", "GB/s", ours, theirs, "memcpy", target=">= 0.7"
    )
    return [row, *costs("shm", runs)]


def tcp(args):
    plain, checked, peer, runs = [], [], [], []
    for _ in range(args.runs):
        peer.append(iperf(args))
        plain.append(bench(args, "tcp", "--no-transfer-checksums")[0]["gb_per_second"])
        runs.append(bench(args, "tcp")[0])
        checked.append(runs[-1]["gb_per_second"])
    name = "tcp over loopback"
    return [
        paired_row(f"{name}, without checksums", "GB/s", plain, peer, "iperf3", target=">= 0.8"),
        paired_row(f"{name}, with checksums", "GB/s", checked, peer, "iperf3", target=">= 0.8"),
        *costs("tcp", runs),
    ]


def nixl(args):
    library = os.environ.get("STATOR_NIXL")
    if not library:
        print("STATOR_NIXL is not set: NIXL is left out")
        return []
    source = pathlib.Path(os.environ.get("STATOR_PEERS", ".")) / "engines" / "nixl_capi_test.c"
    ours, theirs, runs = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        program = None
        if source.exists():
            program = f"{folder}/bare"
            flags = ["-O2", "-w", "-o", program, str(source), "-ldl", "-lpthread"]
            subprocess.run(["cc", *flags], check=True)
        for _ in range(args.runs):
            if program:
                theirs.append(bare_nixl(args, library, program))
            runs.append(bench(args, "nixl", "--nixl-library", library)[0])
            ours.append(runs[-1]["gb_per_second"])
    name = "nixl (UCX between two processes)"
    if theirs:
        row = paired_row(name, "GB/s", ours, theirs, "the bare C interface", target=">= 0.9")
    else:
        row = Row(name, statistics.median(ours), "GB/s")
    return [row, *costs("nixl", runs)]


def latency(args):
    rows = []
    methods = ["shm", "tcp"] + (["nixl"] if os.environ.get("STATOR_NIXL") else [])
    for label, size in SIZES.items():
        for method in methods:
            more = ["--nixl-library", os.environ["STATOR_NIXL"]] if method == "nixl" else []
            runs = [bench(args, method, *more, size=size)[0] for _ in range(args.runs)]

            def middle(figure, runs=runs):
                return statistics.median(run[figure] for run in runs)

            note = f"p99 {middle('arrive_p99_ms'):.3g} ms; the claim alone "
            note += f"{middle('claim_p50_ms'):.3g} ms, the first one {middle('first_claim_ms'):.3g} ms"
            name = f"{method}: {label} from publish to arrived"
            rows.append(Row(name, middle("arrive_p50_ms"), "ms", note=note))
    return rows


def kv(args):
    """A prompt's KV from one engine's cache to another's."""
    command = [args.build / "bench" / "bench_kv_handoff", stator_process.model()]
    command += ["--times", str(args.prompts), "--warm", "1" if args.quick else "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
    run = json.loads(done.stdout)

    def ms(figure):
        return f"{run[figure + '_ms']:.2g}"

    note = f"{run['times']} prompts, p90 {ms('added_p90')}. Handoff {ms('handoff')} = memory "
    note += f"{ms('reserve')} + export {ms('export')} + publish {ms('publish')} + links to the "
    note += f"frontend and on {ms('links')} + claim {ms('claim')} + until the engine begins "
    note += f"{ms('begin_import')} + import {ms('import')}; llama.cpp's own {ms('own')} = export "
    note += f"{ms('own_export')} + import {ms('own_import')}, in parts {ms('own_parts')}. The "
    note += f"first handoff, of new pages: {ms('first_handoff')}, {ms('first_reserve')} for memory"
    name = "shm: KV of 1,000 tokens of SmolLM2 from cache to cache, beyond llama.cpp's own export and import"
    return [Row(name, run["added_ms"], "ms", target="<= 3", note=note)]


PARTS = {"shm": shared_memory, "tcp": tcp, "nixl": nixl, "latency": latency, "kv": kv}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once and short: does it run at all")
    parser.add_argument("--seconds", type=int, default=2, help="of iperf3")
    parser.add_argument("--handoffs", type=int, default=20, help="per run")
    parser.add_argument("--prompts", type=int, default=20, help="whose KV is handed over")
    parser.add_argument("--runs", type=int, default=5, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="writes no result by itself")
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/transfer.json")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.handoffs, args.runs, args.prompts = 1, 5, 1, 2
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "transfer.json"
    if "STATOR_BUILD" not in os.environ:
        parser.error("STATOR_BUILD is not set: give the folder of the release build")
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
    return args


def main():
    args = arguments()
    for program in ["iperf3", "cc"]:
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {'gcc' if program == 'cc' else program}")
    loads, rows = [], []
    for name in args.only or PARTS:
        loads.append(round(os.getloadavg()[0], 1))
        print(f"{name} (load average {loads[-1]}):", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    if args.output is not None:
        about = {
            "runs": args.runs,
            "handoffs_per_run": args.handoffs,
            "bytes": BIG,
            "prompts": args.prompts,
            "load_average_before_each_part": loads,
        }
        results.write(args.output, " ".join(["./dev bench transfer", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
