"""Images in chats: an encoder of random numbers, so that answers mean nothing, but must be the same
wherever a request's legs are computed, and differ where the picture does."""

import base64
import json
import os
import pathlib
import struct
import subprocess
import zlib

import pytest
import stator_process
from conftest import openai_client, read_metrics, wait_until

# Logits nearer than this may change places where the shape of a batch differs.
NEAR_TIE = 1.0
OPTIONS = {"engine_threads": 1, "threads": 1, "context": 4096, "max_sequence": 2048}


def png(width, height, pixel):
    """RGB, each pixel by its place."""
    rows = b"".join(
        b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height)
    )

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


STRIPES = png(120, 80, lambda x, y: (255 * (x // 10 % 2), 40, 200))
CIRCLE = png(120, 80, lambda x, y: (10, 255 if (x - 60) ** 2 + (y - 40) ** 2 < 900 else 0, 90))


def data_url(image, kind="image/png"):
    return f"data:{kind};base64," + base64.b64encode(image).decode()


def ask(client, model, *images, text="What is this?", **fields):
    parts = [{"type": "image_url", "image_url": {"url": data_url(i)}} for i in images]
    return client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
        max_tokens=12,
        temperature=0,
        **fields,
    )


@pytest.fixture(scope="module")
def projector(tmp_path_factory):
    tool = pathlib.Path(os.environ.get("STATOR_BUILD", "")) / "tools" / "make_projector"
    if not tool.exists():
        pytest.skip("there is no make_projector in STATOR_BUILD")
    path = tmp_path_factory.mktemp("projector") / "mmproj.gguf"
    subprocess.run([tool, stator_process.model(), path], check=True, timeout=60)
    return str(path)


@pytest.fixture(scope="module")
def servers(projector):
    """The same model in one worker, and with a worker for each leg."""
    started = []
    try:
        for more in ({}, {"topology": "epd", "router_disaggregation": "always"}):
            server = stator_process.StatorServer(
                stator_process.model(), mmproj=projector, served_model_name="vlm", **OPTIONS, **more
            )
            started.append(server)
            server.start()
        yield started
    finally:
        for server in started:
            server.stop()


def ready_together(server):
    """Ready workers of the largest pool."""
    health = json.loads(server.request("GET", "/health")[2])
    return max((p["ready"] for p in health["fleet"]["pools"]), default=0)


@pytest.fixture(scope="module")
def clients(servers):
    made = [openai_client(s) for s in servers]
    for server, workers in zip(servers, (1, 3), strict=True):
        wait_until(lambda s=server, n=workers: ready_together(s) == n, "all are of one pool")
    yield made
    for client in made:
        client.close()


def test_the_answer_depends_on_the_picture(clients):
    whole = clients[0]
    texts = [ask(whole, "vlm", image).choices[0].message.content for image in (STRIPES, CIRCLE)]
    assert texts[0] != texts[1]
    assert ask(whole, "vlm", STRIPES).choices[0].message.content == texts[0]


def test_pictures_count_as_prompt(clients):
    whole = clients[0]
    with_one = ask(whole, "vlm", STRIPES).usage.prompt_tokens
    with_two = ask(whole, "vlm", STRIPES, CIRCLE).usage.prompt_tokens
    assert with_two - with_one >= 64


def assert_same_until_near_tie(whole, apart):
    for ours, theirs in zip(whole, apart, strict=True):
        if ours.token != theirs.token:
            best = [t.logprob for t in ours.top_logprobs]
            assert best[0] - best[1] < NEAR_TIE, (ours, theirs)
            return


def test_legs_apart_answer_the_same(clients, servers):
    for images in ((STRIPES,), (CIRCLE,), (CIRCLE, STRIPES), ()):
        whole, apart = (
            ask(c, "vlm", *images, logprobs=True, top_logprobs=2).choices[0].logprobs.content
            for c in clients
        )
        assert_same_until_near_tie(whole, apart)
    assert read_metrics(servers[1]).sum("stator_pool_split_requests_total") >= 4


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (data_url(STRIPES[:200]), 400),
        (data_url(b"GIF89a" + bytes(100), "image/gif"), 400),
        ("http://127.0.0.1:1/x.png", 400),
        ("https://localhost/x.png", 400),
        ("file:///etc/passwd", 400),
    ],
)
def test_bad_pictures_are_the_clients_error(servers, url, status):
    body = {
        "model": "vlm",
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        ],
    }
    got, _, answer = servers[0].request("POST", "/v1/chat/completions", body)
    assert got == status, answer
    assert b"messages[0].content[0]" in answer
