"""Servers of a model that reads images and videos: the test's model, and an encoder of random
numbers. What such a model says means nothing, but must be the same wherever a request's legs are
computed, and differ where what it sees does.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import time

import stator_process

OPTIONS = {
    **{"engine_threads": 1, "threads": 1, "context": 4096, "max_sequence": 2048},
    # Many tests at once on few cores are no stuck engine.
    "canary_after": "60s",
}
# One process for each leg.
APART = {"topology": "epd", "router_disaggregation": "always"}
# Logits nearer than this may change places where the shape of a batch differs.
NEAR_TIE = 1.0
READY_SECONDS = 60


def make_projector(folder, layers=2):
    """Path of an encoder for the test's model; None where the build has no tool to make one. With
    2 layers it takes some 3 ms a picture."""
    tool = pathlib.Path(os.environ.get("STATOR_BUILD", "")) / "tools" / "make_projector"
    if not tool.exists():
        return None
    path = folder / f"mmproj-{layers}.gguf"
    subprocess.run([tool, stator_process.model(), path, str(layers)], check=True, timeout=60)
    return str(path)


def media_server(projector, extra=(), **options):
    """Not started; with one worker for all legs, unless the options say otherwise."""
    return stator_process.StatorServer(
        stator_process.model(),
        extra=extra,
        mmproj=projector,
        served_model_name="vlm",
        **{**OPTIONS, **options},
    )


def wait_together(server, workers):
    """Until so many workers are ready in one pool."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        health = json.loads(server.request("GET", "/health")[2])
        if max((p["ready"] for p in health["fleet"]["pools"]), default=0) == workers:
            return
        if time.monotonic() > deadline:
            raise stator_process.StartError(f"not {workers} workers together: {health}")
        time.sleep(0.02)


@contextlib.contextmanager
def whole_and_apart(projector, extra=(), **options):
    """The same model in one worker, and with a worker for each leg: both started and complete."""
    servers = [
        media_server(projector, extra, **options),
        media_server(projector, extra, **options, **APART),
    ]
    try:
        for server, workers in zip(servers, (1, 3), strict=True):
            server.start()
            wait_together(server, workers)
        yield servers
    finally:
        for server in servers:
            server.stop()


def part(kind, url):
    """A content part: kind is "image" or "video"."""
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def chat_body(*parts, **fields):
    """The body of a short chat about these parts; strings are text."""
    content = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
    messages = [{"role": "user", "content": content}]
    fixed = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
    return {"model": "vlm", "messages": messages, **fixed, **fields}


def post_chat(server, *parts, timeout=60, **fields):
    """(status, answer) of a chat as JSON."""
    body = chat_body(*parts, **fields)
    status, _, answer = server.request("POST", "/v1/chat/completions", body, timeout=timeout)
    return status, json.loads(answer)


def tokens_of(answer):
    return answer["choices"][0]["logprobs"]["content"]


def assert_same_until_near_tie(ours, theirs):
    """Two lists of tokens with their two best logprobs (`top_logprobs=2`)."""
    for a, b in zip(ours, theirs, strict=True):
        if a["token"] != b["token"]:
            best = [t["logprob"] for t in a["top_logprobs"]]
            assert best[0] - best[1] < NEAR_TIE, (a, b)
            return
