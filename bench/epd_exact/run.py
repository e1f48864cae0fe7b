#!/usr/bin/env python3
"""Answers of encode, prefill and decode workers against those of one whole worker, token for token, by each transfer method.

    STATOR_BIN=… STATOR_MODEL=… STATOR_BUILD=… [STATOR_NIXL=…] bench/epd_exact/run.py [--quick] [--only PART] [--output FILE]

See bench/README.md.
"""

import argparse
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import pictures  # noqa: E402
import stator_process  # noqa: E402
from answers import exchange  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402
from metrics_text import Metrics  # noqa: E402
from same_answers import (  # noqa: E402
    METHODS,
    NEAR_TIE,
    answers_of,
    gap_where_they_part,
    prompts_of_mixed_length,
    transfer_options,
)

TOKENS = 12
MOCK = {
    "engine": "mock",
    "mock_preset": "constant-10ms",
    "mock_mean_output": 0,
    "speedup": 20,
    "max_sequence": 8192,
    "served_model_name": "mock",
}
LLAMA = {"engine_threads": 1, "context": 8192, "max_sequence": 2048, "served_model_name": "llama"}


class Part:
    """Some prompts and the kind of workers that they are asked of."""

    name = ""
    roles = ("prefill", "decode")
    whole_roles = ("aggregated",)
    options = {}
    model_path = None

    def ask(self, frontend):
        raise NotImplementedError

    def start(self, folder, roles_by_name, **more):
        """(frontend, workers), all ready."""
        workers = [
            stator_process.StatorWorker(
                folder,
                name,
                model_path=self.model_path,
                role=list(roles),
                worker_http="127.0.0.1:0",
                **self.options,
                **more,
            )
            for name, roles in roles_by_name.items()
        ]
        always = {} if len(workers) == 1 else {"router_disaggregation": "always"}
        # Long steps beside other work are no stuck engine.
        frontend = stator_process.StatorFrontend(folder, threads=1, canary_after="60s", **always)
        try:
            for worker in workers:
                worker.launch()
            for worker in workers:
                worker.wait_ready()
            frontend.start()
            frontend.wait_workers(*roles_by_name)
        except BaseException:
            self.stop(frontend, workers)
            raise
        return frontend, workers

    def stop(self, frontend, workers):
        for child in (frontend, *workers):
            if child.process is not None:
                child.terminate()
        for child in (frontend, *workers):
            child.stop()

    def answers(self, roles_by_name, **more):
        """Answers, and how many handoffs of each kind came to the workers that wanted them."""
        with tempfile.TemporaryDirectory(prefix="stator-exact-") as folder:
            frontend, workers = self.start(folder, roles_by_name, **more)
            try:
                return self.ask(frontend), handoffs(workers)
            finally:
                self.stop(frontend, workers)

    def run(self):
        start = time.monotonic()
        whole, _ = self.answers({"whole": self.whole_roles})
        print(f"{self.name}: one worker, {time.monotonic() - start:.0f} s", file=sys.stderr)
        lengths = sorted(a.usage["prompt_tokens"] for a in whole)
        rows = []
        for method in METHODS:
            more = transfer_options(method)
            if more is None:
                print(f"{self.name}: no NIXL, STATOR_NIXL is not set", file=sys.stderr)
                continue
            start = time.monotonic()
            apart, came = self.answers({role: (role,) for role in self.roles}, **more)
            print(f"{self.name}: {method}, {time.monotonic() - start:.0f} s", file=sys.stderr)
            rows += self.rows(method, whole, apart, came, lengths)
        return rows

    def rows(self, method, whole, apart, came, lengths):
        gaps = [gap_where_they_part(a, w) for a, w in zip(apart, whole, strict=True)]
        parted = [gap for gap in gaps if gap is not None]
        name = f"{self.name}, {method}"
        asked = f"of {len(whole)} prompts of {lengths[0]} to {lengths[-1]} tokens, {TOKENS} each"
        near = f"near-tie: the two best logits less than ε = {NEAR_TIE} apart"
        rows = [
            Row(
                f"{name}: handoffs that came and were used",
                came["kv claimed"] + came["embeddings claimed"],
                "handoffs",
                target=f">= {self.handoffs_wanted()}",
                note=", ".join(f"{n} {what}" for what, n in sorted(came.items())),
            ),
            Row(f"{name}: identical", len(gaps) - len(parted), "answers", note=asked),
            Row(
                f"{name}: part at a near-tie",
                sum(gap <= NEAR_TIE for gap in parted),
                "answers",
                note=near,
            ),
            Row(
                f"{name}: part at a gap above ε = {NEAR_TIE}",
                sum(gap > NEAR_TIE for gap in parted),
                "answers",
                target="<= 0",
            ),
            Row(
                f"{name}: widest gap of the two best logits where answers part",
                max(parted, default=0.0),
                "logits",
                target=f"<= {NEAR_TIE}",
                note=f"ε = {NEAR_TIE}",
            ),
        ]
        for answer, one, gap in zip(apart, whole, gaps, strict=True):
            if gap is not None and gap > NEAR_TIE:
                print(f"  {name}: {answer.text!r}, not {one.text!r}", file=sys.stderr)
        return rows


class Texts(Part):
    def __init__(self, prompts):
        self.prompts = prompts

    def handoffs_wanted(self):
        # What decode has cached already is not sent.
        return len(self.prompts) * 8 // 10


class MockTexts(Texts):
    name = "mock"
    options = MOCK

    def ask(self, frontend):
        return answers_of(frontend, self.prompts, TOKENS, logprobs=2, model="mock")

    def rows(self, *args):
        """Token for token: nothing is rounded here."""
        rows = super().rows(*args)
        rows[1].target = f">= {len(self.prompts)}"
        return rows[:2]


class LlamaTexts(Texts):
    name = "llama"
    options = LLAMA

    def __init__(self, prompts):
        super().__init__(prompts)
        self.model_path = stator_process.model()

    def ask(self, frontend):
        # One at a time, so that batches have the same shape wherever they are computed.
        return answers_of(frontend, self.prompts, TOKENS, 1, logprobs=2, model="llama")


class Pictures(Part):
    """Chats about pictures; the encoder is one of random numbers."""

    name = "llama with pictures"
    roles = ("encode", "prefill", "decode")
    whole_roles = ("aggregated", "encode")

    def __init__(self, count, projector):
        self.model_path = stator_process.model()
        self.options = {**LLAMA, "mmproj": projector}
        rng = random.Random(3)
        self.bodies = [self.body(rng, i) for i in range(count)]
        self.items = sum(len(b["messages"][0]["content"]) - 1 for b in self.bodies)

    def handoffs_wanted(self):
        return self.items + len(self.bodies) * 8 // 10

    def body(self, rng, number):
        parts = []
        for _ in range(rng.choice((1, 1, 2))):
            colours = [rng.randrange(256) for _ in range(6)]
            side = rng.randint(4, 20)
            image = pictures.png(
                rng.randint(40, 160),
                rng.randint(40, 160),
                lambda x, y, c=colours, s=side: c[3 * ((x // s + y // s) % 2) :][:3],
            )
            parts.append({"type": "image_url", "image_url": {"url": pictures.data_url(image)}})
        words = prompts_of_mixed_length(1, 60, seed=number)[0]
        parts.insert(rng.randint(0, len(parts)), {"type": "text", "text": f"{words}?"})
        return {
            "model": "llama",
            "messages": [{"role": "user", "content": parts}],
            **{"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True},
            **{"logprobs": True, "top_logprobs": 2, "return_token_ids": True},
        }

    def ask(self, frontend):
        out = []
        for body in self.bodies:
            answer = exchange(frontend, "/v1/chat/completions", body, timeout=120)
            assert answer.status == 200 and not answer.broken, f"{answer}"
            out.append(answer)
        return out


def handoffs(workers):
    """What became of those that workers wanted: "kind outcome" → number."""
    out = {"kv claimed": 0, "embeddings claimed": 0}
    for worker in workers:
        port = re.search(r"Health and metrics are shown\. port=(\d+)", worker.log()).group(1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            samples = Metrics(answer.read().decode()).samples
        for name, labels, value in samples:
            if name == "stator_worker_handoffs_total":
                what = f"{labels['kind']} {labels['outcome']}"
                out[what] = out.get(what, 0) + int(value)
    return out


def make_projector(folder):
    tool = pathlib.Path(os.environ["STATOR_BUILD"]) / "tools" / "make_projector"
    path = pathlib.Path(folder) / "mmproj.gguf"
    subprocess.run([tool, stator_process.model(), path], check=True, timeout=60)
    return str(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few prompts of each kind")
    parser.add_argument("--only", choices=("mock", "llama", "pictures"))
    parser.add_argument("--output", type=pathlib.Path, default=None)
    args = parser.parse_args()
    texts, chats = (12, 3) if args.quick else (100, 20)
    rows = []
    with tempfile.TemporaryDirectory(prefix="stator-exact-") as folder:
        # About 3.5 of this model's tokens a word; the first two are two tokens.
        prompts = ["Hello world", "Good morning", *prompts_of_mixed_length(texts - 2, 190)]
        parts = {
            "mock": lambda: MockTexts(prompts_of_mixed_length(texts, 120)),
            "llama": lambda: LlamaTexts(prompts),
            "pictures": lambda: Pictures(chats, make_projector(folder)),
        }
        for name, part in parts.items():
            if args.only in (None, name):
                rows += part().run()
    print(results.table(rows))
    output = args.output
    if output is None and not args.quick and args.only is None:
        output = results.RESULTS / "epd_exact.json"
    if output is None:
        return
    about = {
        "model": pathlib.Path(stator_process.model()).name,
        "near_tie": f"ε = {NEAR_TIE} in logits",
        "tokens": TOKENS,
        "nixl": bool(os.environ.get("STATOR_NIXL")),
    }
    results.write(output, " ".join(["./dev bench epd_exact", *sys.argv[1:]]), rows, about)
    print(f"written: {output}")


if __name__ == "__main__":
    main()
