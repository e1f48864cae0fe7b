#!/usr/bin/env python3
"""Real vLLM servers on this CPU: prefix hits with KV-aware routing and with round-robin.

    STATOR_BIN=… STATOR_PEERS=… bench/engines_real/run.py [--requests N]

See bench/README.md.
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import vllm_cpu  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402
from stator_process import StatorServer  # noqa: E402

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
    engines = [vllm_cpu.VllmCpu(f"bench{i}", blocks=BLOCKS) for i in range(2)]
    print("starting two vLLM servers (minutes) …", flush=True)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=240)
    parser.add_argument("--output", type=pathlib.Path, default=results.RESULTS / "engines_real.json")
    args = parser.parse_args()
    try:
        rows = routing(args)
    except vllm_cpu.Unavailable as why:
        sys.exit(f"real vLLM servers can't be had here: {why}")
    print(results.table(rows))
    about = {"vllm": "0.32.0 (vllm-cpu)", "model": "two random layers", "block_tokens": vllm_cpu.BLOCK}
    command = " ".join(["./dev bench engines_real", *sys.argv[1:]])
    results.write(args.output, command, rows, about)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
