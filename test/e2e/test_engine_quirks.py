"""Versions and quirks of engines (test/engines/quirks.json) behind Stator, with fake engines that
are held against recordings."""

import http.client
import json
import pathlib
import sys

import pytest
import stator_process
from conftest import wait_until
from test_engines import complete, prompt, serve, tokens_of  # noqa: F401

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "engines"))

from fake_engine import tokens_after  # noqa: E402
from fakes import Fake  # noqa: E402


@pytest.fixture
def fakes():
    made = []

    def make(count=1, **options):
        made.extend(Fake(**options) for _ in range(count))
        return made[-count:] if count > 1 else made[-1]

    yield make
    for engine in made:
        engine.stop()


def expected(ids, count=4):
    return tokens_after(ids, count)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"version": "0.32.0"}, "/inference/v1/generate"),
        ({"version": "0.14.1"}, "/v1/completions"),
        ({"version": "0.12.0"}, "/v1/completions"),
        ({"version": "0.10.2"}, "/v1/completions"),
        ({"kind": "sglang"}, "/generate"),
        ({"kind": "sglang", "quirks": ["incremental_output"]}, "/generate"),
        ({"kind": "trtllm", "events": False}, "/v1/completions"),
    ],
    ids=["vllm-0.32", "vllm-0.14", "vllm-0.12", "vllm-0.10", "sglang", "sglang-inc", "trtllm"],
)
def test_tokens_of_each_version(fakes, serve, options, path):  # noqa: F811
    engine = fakes(**options)
    server = serve(engine)
    ids = prompt(1)
    assert tokens_of(complete(server, ids)) == expected(ids)
    assert engine.state["requests"][-1]["path"] == path


def warm(engine, ids):
    if engine.kind == "sglang":
        body = {"input_ids": ids, "sampling_params": {"max_new_tokens": 1}}
        assert engine.ask("POST", "/generate", body)[0] == 200
    else:
        body = {"model": "tiny", "prompt": ids, "max_tokens": 1}
        assert engine.ask("POST", "/v1/completions", body)[0] == 200


def holders(server, ids):
    """Those of which the router knows that they have all of it."""
    body = {"model": "tiny", "tokens": ids}
    status, _, data = server.request("POST", "/router/overlap", body)
    assert status == 200, data
    answer = json.loads(data)
    return [h for h in answer["ranks"] if h["any_blocks"] >= answer["blocks"]]


@pytest.mark.parametrize(
    ("options", "quirks"),
    [
        ({"version": "0.32.0"}, []),
        ({"version": "0.32.0"}, ["bytes_hashes"]),
        ({"version": "0.32.0"}, ["page_64"]),
        ({"version": "0.14.1"}, []),
        ({"kind": "sglang"}, []),
        ({"kind": "sglang"}, ["page_1"]),
        ({"kind": "sglang"}, ["dynamo_format"]),
        ({"kind": "trtllm", "version": "1.4.0"}, []),
        ({"kind": "trtllm", "version": "1.2.0"}, []),
    ],
    ids=[
        *("vllm-0.32", "bytes", "page-64", "vllm-0.14", "sglang", "page-1", "dynamo"),
        *("trtllm-1.4", "trtllm-drained"),
    ],
)
def test_what_an_engine_holds_is_known(fakes, serve, options, quirks):  # noqa: F811
    """Its history is asked for and its hashes are mapped: the prompt goes where its prefix is."""
    first, second = fakes(2, quirks=quirks, token_s=0.0005, **options)
    ids = prompt(5, 256)
    warm(second, ids)
    given = {}
    if options.get("version") == "1.2.0":
        given = {"engine_events": ["drain", "drain"]}
    elif "sglang" not in options.values() and options.get("version") != "0.32.0":
        given = {
            "engine_events": [e.events[0] for e in (first, second)],
            "engine_replay": [e.replay[0] for e in (first, second)],
        }
    server = serve(first, second, router_error_band=0, **given)
    wait_until(lambda: holders(server, ids), "what the second holds is known")
    complete(server, ids + prompt(6, 8))
    assert not first.state["requests"] and second.state["hits"] == [256]


@pytest.mark.parametrize("quirk", ["errors_500", "malformed_sse", "malformed_json"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_goes_wrong_is_no_end(fakes, serve, quirk, stream):  # noqa: F811
    """The client gets an error, and what comes after it is well is served."""
    engine = fakes(quirks=[quirk])
    server = serve(engine)
    ids = prompt(1)
    body = {"model": "tiny", "prompt": ids, "max_tokens": 4, "stream": stream}
    status, _, data = server.request("POST", "/v1/completions", body)
    assert status >= 500 or (stream and b'"error"' in data), (status, data)
    engine.set(fail="")
    server.wait_ready_workers(1)
    assert tokens_of(complete(server, ids)) == expected(ids)


@pytest.mark.parametrize("others", [0, 1])
def test_streams_that_engines_drop_are_resumed(fakes, serve, others):  # noqa: F811
    """Each connection ends behind two tokens; clients get the whole all the same."""
    engines = [fakes(quirks=["drops"]), *(fakes() for _ in range(others))]
    server = serve(*engines)
    for seed in range(6):
        ids = prompt(seed)
        assert tokens_of(complete(server, ids)) == expected(ids)
    assert all(e.state["requests"] for e in engines)


@pytest.mark.parametrize("quirk", ["errors_500", "malformed_sse", "malformed_json"])
def test_one_engine_that_goes_wrong_leaves_the_other_alone(fakes, serve, quirk):  # noqa: F811
    bad, good = fakes(quirks=[quirk]), fakes()
    server = serve(bad, good)
    answers = []
    for seed in range(12):
        ids = prompt(seed)
        body = {"model": "tiny", "prompt": ids, "max_tokens": 4, "return_token_ids": True}
        status, _, data = server.request("POST", "/v1/completions", body)
        answers.append(status)
        assert status in (200, 500, 502), data
        if status == 200:
            assert tokens_of(json.loads(data)) == expected(ids)
    assert 200 in answers and good.state["requests"]


def test_an_engine_that_stalls_is_left_with_its_client(fakes, serve):  # noqa: F811
    """A stream that stands still is cancelled when its client leaves; the engine hears of it."""
    engine = fakes(quirks=["stalls"])
    server = serve(engine)
    body = {"model": "tiny", "prompt": prompt(1), "max_tokens": 4, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body))
    wait_until(lambda: engine.state["requests"], "the engine has it")
    connection.getresponse().read(1)
    connection.close()
    wait_until(lambda: engine.state["aborted"], "the engine is told")
    engine.set(fail="")
    assert tokens_of(complete(server, prompt(2))) == expected(prompt(2))


def test_a_refusal_is_the_clients(fakes, serve):  # noqa: F811
    """A 4xx is passed through, and the engine stays in use."""
    engine = fakes(quirks=["errors_400"])
    server = serve(engine)
    body = {"model": "tiny", "prompt": prompt(1), "max_tokens": 4}
    for _ in range(12):
        status, _, data = server.request("POST", "/v1/completions", body)
        assert status == 400 and b"what this engine doesn't like" in data
    assert [w["state"] for w in server.workers().values()] == ["ready"]
    engine.set(fail="")
    assert tokens_of(complete(server, prompt(1))) == expected(prompt(1))


@pytest.mark.parametrize("quirk", ["unknown_parents", "lost_batches", "short_replay"])
def test_events_that_do_not_fit_are_survived(fakes, serve, quirk):  # noqa: F811
    engine = fakes(quirks=[quirk])
    for seed in range(50, 60):
        warm(engine, prompt(seed))
    server = serve(engine)
    for seed in range(12):
        ids = prompt(seed)
        assert tokens_of(complete(server, ids)) == expected(ids)
    assert [w["state"] for w in server.workers().values()] == ["ready"]


def test_an_engine_restarts_with_other_blocks(fakes, serve):  # noqa: F811
    """Its block size is another, and its sequence begins at 0 again."""
    engine = fakes()
    server = serve(engine)
    for seed in range(4):
        complete(server, prompt(seed, 256))
    engine.stop()
    wait_until(
        lambda: [w["state"] for w in server.workers().values()] != ["ready"], "its end is noticed"
    )
    engine.with_trait("page", 64)
    engine.start()
    server.wait_ready_workers(1)
    ids = prompt(1, 256)
    for _ in range(2):
        assert tokens_of(complete(server, ids)) == expected(ids)
    assert engine.state["hits"] == [192]


@pytest.mark.parametrize(
    ("kind", "options", "way"),
    [
        ("vllm", {"engine_connector": "nixl"}, "always"),
        ("sglang", {}, "always"),
        ("sglang", {}, "conditional"),  # its decoder computes no prompts, however short
        ("trtllm", {}, "always"),
    ],
)
def test_prompts_and_output_on_different_engines(fakes, fleet, kind, options, way):
    """The decoding fake takes KV from nobody but the fake that prefilled: what it answers proves
    that both legs ran, with the engines' own objects."""
    trt = {"events": False} if kind == "trtllm" else {}
    engines = {role: fakes(kind=kind, role=role, **trt) for role in ("prefill", "decode")}
    workers = [
        fleet.worker(
            role[0],
            stator_process.model(),
            role=role,
            engine=f"{kind}={engine.url}",
            engine_canary="0s",
            **options,
        ).launch()
        for role, engine in engines.items()
    ]
    for worker in workers:
        worker.wait_ready()
    frontend = fleet.frontend(router_disaggregation=way)
    frontend.wait_workers("p", "d")
    wait_until(lambda: "A pool of workers is served" in frontend.log(), "the model is served")
    for seed in range(4):
        ids = prompt(seed)
        assert tokens_of(complete(frontend, ids)) == expected(ids)
    for engine in engines.values():
        assert len(engine.state["requests"]) == 4
    first = engines["prefill"]
    wait_until(lambda: not first.state["handed"] and not first.state["pinned"], "all is released")
