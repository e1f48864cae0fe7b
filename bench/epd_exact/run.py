#!/usr/bin/env python3
"""Prompts computed on one worker and decoded on another: is the text that of one worker that does both?

    STATOR_BIN=… STATOR_MODEL=… STATOR_BUILD=… [STATOR_NIXL=…] bench/epd_exact/run.py [--quick] [--prompts N]

See bench/README.md.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import near_ties  # noqa: E402
import pictures  # noqa: E402
import stator_process  # noqa: E402
from answers import stream_completion  # noqa: E402
from epd_prompts import prompts_of_mixed_length  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402

TOKENS = 12
LONGEST = 300  # words: some 900 tokens
MOCK = {"engine": "mock", "mock_preset": "constant-10ms", "mock_mean_output": 0, "speedup": 20}
LLAMA = {"engine_threads": 1, "context": 8192, "max_sequence": 4096}
ALWAYS = {"router_disaggregation": "always"}


class Fleet:
    """A worker for each list of roles, and a frontend."""

    def __init__(self, roles, model=None, frontend=None, **options):
        self.folder = tempfile.TemporaryDirectory(prefix="stator-exact-")
        self.workers = [
            stator_process.StatorWorker(
                self.folder.name, f"w{i}", model_path=model, role=r, worker_http="127.0.0.1:0",
                served_model_name="m", **options
            )
            for i, r in enumerate(roles)
        ]
        self.frontend = stator_process.StatorFrontend(
            self.folder.name, threads=1, **(frontend or {})
        )

    def __enter__(self):
        try:
            for worker in self.workers:
                worker.launch()
            for worker in self.workers:
                worker.wait_ready(120)
            self.frontend.start()
            self.frontend.wait_workers(*(w.name for w in self.workers))
        except BaseException:
            self.__exit__()
            raise
        return self.frontend

    def __exit__(self, *exc):
        for child in (self.frontend, *self.workers):
            child.stop()
        self.folder.cleanup()


def progress(what, done, of):
    print(f"\r{what}: {done} of {of}\x1b[K", end="", file=sys.stderr, flush=True)
    if done == of:
        print(file=sys.stderr)


def texts(what, frontend, prompts, at_once=1, **fields):
    """Answers to prompts, in order."""
    def one(prompt):
        return stream_completion(frontend, prompt, TOKENS, timeout=300, model="m", **fields)

    out = []
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for answer in pool.map(one, prompts):
            if not answer.complete:
                sys.exit(f"{what}: {answer}")
            out.append(answer)
            progress(what, len(out), len(prompts))
    return out


def picture_chats(count):
    """Bodies with one to three pictures each."""
    images = [
        pictures.data_url(
            pictures.png(90 + 8 * n, 60, lambda x, y, n=n: ((37 * n + x) % 256, (y * n) % 256, 99))
        )
        for n in range(7)
    ]
    out = []
    for i in range(count):
        parts = [
            {"type": "image_url", "image_url": {"url": images[(i + k) % len(images)]}}
            for k in range(1 + i % 3)
        ]
        parts.append({"type": "text", "text": f"What do you see in picture {i}?"})
        out.append({"model": "m", "messages": [{"role": "user", "content": parts}],
                    "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True,
                    "logprobs": True, "top_logprobs": 2})
    return out


def chats(what, frontend, bodies):
    """The tokens of answers with their best logprobs: [(token, [logprob, …]), …] each."""
    out = []
    for body in bodies:
        status, _, text = frontend.request("POST", "/v1/chat/completions", body, timeout=300)
        if status != 200:
            sys.exit(f"{what}: {status} {text[:300]}")
        content = json.loads(text)["choices"][0]["logprobs"]["content"]
        out.append([(t["token"], [b["logprob"] for b in t["top_logprobs"]]) for t in content])
        progress(what, len(out), len(bodies))
    return out


def compare(name, pairs):
    """Rows of pairs (ours, whole, best logprobs of whole)."""
    same, ties, widest, wrong = 0, 0, 0.0, 0
    for ours, whole, best in pairs:
        at = near_ties.first_difference(ours, whole)
        if at is None:
            same += 1
            continue
        gap = near_ties.gap(best[at])
        widest = max(widest, gap)
        ties += gap < near_ties.EPSILON
        wrong += gap >= near_ties.EPSILON
    total = same + ties + wrong
    note = (
        f"{same} of {total} token for token, {ties} until a near-tie; widest gap of the two best "
        f"there {widest:.2f}, ε = {near_ties.EPSILON} in logits"
    )
    return [Row(f"{name}: answers that differ where there was no near-tie", wrong, f"of {total}",
                target="<= 0", note=note)]


def methods():
    out = {"shm": {"transfer": "shm"}, "tcp": {"transfer": "tcp"}}
    if library := os.environ.get("STATOR_NIXL"):
        out["nixl"] = {"transfer": "nixl", "nixl_library": library}
    return out


def mock(args):
    prompts = prompts_of_mixed_length(args.prompts, 80)
    with Fleet([["aggregated"]], **MOCK) as frontend:
        expected = [a.text for a in texts("mock, whole", frontend, prompts, 8)]
    rows = []
    for method, options in methods().items():
        with Fleet([["prefill"], ["decode"]], frontend=ALWAYS, **MOCK, **options) as frontend:
            got = [a.text for a in texts(f"mock, {method}", frontend, prompts, 8)]
        differ = sum(a != b for a, b in zip(got, expected, strict=True))
        rows.append(Row(f"mock engine, {method}: answers that differ", differ,
                        f"of {len(prompts)}", target="<= 0"))
    return rows


def llama(args):
    prompts = prompts_of_mixed_length(args.prompts, LONGEST)
    model = stator_process.model()
    with Fleet([["aggregated"]], model, **LLAMA) as frontend:
        whole = texts("llama, whole", frontend, prompts, logprobs=2)
    lengths = sorted(a.usage["prompt_tokens"] for a in whole)
    rows = []
    for method, options in methods().items():
        with Fleet([["prefill"], ["decode"]], model, ALWAYS, **LLAMA, **options) as frontend:
            got = texts(f"llama, {method}", frontend, prompts, logprobs=2)
        rows += compare(
            f"llama, {method}",
            [(a.token_texts, b.token_texts, [list(t.values()) for t in b.best])
             for a, b in zip(got, whole, strict=True)],
        )
    rows[0].note += f"; prompts of {lengths[0]} to {lengths[-1]} tokens"
    return rows


def images(args):
    tool = pathlib.Path(os.environ["STATOR_BUILD"]) / "tools" / "make_projector"
    model = stator_process.model()
    bodies = picture_chats(max(2, args.prompts // 5))
    rows = []
    with tempfile.TemporaryDirectory(prefix="stator-exact-") as folder:
        projector = str(pathlib.Path(folder) / "mmproj.gguf")
        subprocess.run([tool, model, projector], check=True, timeout=120)
        options = {**LLAMA, "mmproj": projector}
        with Fleet([["aggregated", "encode"]], model, **options) as frontend:
            whole = chats("pictures, whole", frontend, bodies)
        for method, more in methods().items():
            roles = [["encode"], ["prefill"], ["decode"]]
            with Fleet(roles, model, ALWAYS, **options, **more) as frontend:
                got = chats(f"pictures, {method}", frontend, bodies)
            rows += compare(
                f"llama with pictures, {method}",
                [([t for t, _ in a], [t for t, _ in b], [best for _, best in b])
                 for a, b in zip(got, whole, strict=True)],
            )
    return rows


PARTS = {"mock": mock, "llama": llama, "images": images}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="ten prompts; nothing is written")
    parser.add_argument("--prompts", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    if args.quick:
        args.prompts = 10
    rows = []
    for part in args.only:
        rows += PARTS[part](args)
    print(results.table(rows))
    for row in rows:
        if row.note:
            print(f"{row.name}: {row.note}")
    if not args.quick and args.only == list(PARTS):
        output = results.RESULTS / "epd_exact.json"
        about = {"model": pathlib.Path(stator_process.model()).name, "tokens": TOKENS}
        results.write(output, " ".join(["./dev bench epd_exact", *sys.argv[1:]]), rows, about)
        print(f"written: {output}")


if __name__ == "__main__":
    main()
