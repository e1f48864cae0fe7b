"""Versions and quirks of engines (test/engines/quirks.json) behind Stator, with fake engines that
are held against recordings."""

import http.client
import json
import pathlib
import re
import sys

import pytest
import stator_process
from conftest import read_metrics, wait_until
from test_engines import complete, prompt, serve, tokens_of  # noqa: F401

ENGINES = pathlib.Path(__file__).resolve().parents[1] / "engines"
sys.path.insert(0, str(ENGINES))

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
        ({"version": "0.32.0", "quirks": ["no_generate_route"]}, "/v1/completions"),
        ({"version": "0.14.1", "quirks": ["generate_not_streamed"]}, "/v1/completions"),
        ({"kind": "sglang"}, "/generate"),
        ({"kind": "sglang", "quirks": ["incremental_output"]}, "/generate"),
        ({"kind": "trtllm", "events": False}, "/v1/completions"),
    ],
    ids=[
        *("vllm-0.32", "vllm-0.14", "vllm-0.12", "vllm-0.10", "no-route", "not-streamed"),
        *("sglang", "sglang-inc", "trtllm"),
    ],
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


def holders(server, ids, **more):
    """Those of which the router knows that they have all of it."""
    body = {"model": "tiny", "tokens": ids, **more}
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
        ({"version": "0.32.0"}, ["array_events", "replay_without_topic"]),
        ({"version": "0.32.0"}, ["no_event_sources"]),
        ({"version": "0.14.1"}, []),
        ({"kind": "sglang"}, []),
        ({"kind": "sglang"}, ["page_16"]),
        ({"kind": "sglang"}, ["page_1"]),
        ({"kind": "sglang"}, ["dynamo_format"]),
        ({"kind": "trtllm", "version": "1.4.0"}, []),
        ({"kind": "trtllm", "version": "1.2.0"}, []),
    ],
    ids=[
        *("vllm-0.32", "bytes", "page-64", "array", "no-sources", "vllm-0.14"),
        *("sglang", "page-16", "page-1", "dynamo"),
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
    elif "sglang" not in options.values() and (
        options.get("version") != "0.32.0" or "no_event_sources" in quirks
    ):
        given = {
            "engine_events": [e.events[0] for e in (first, second)],
            "engine_replay": [e.replay[0] for e in (first, second)],
        }
    server = serve(first, second, router_error_band=0, **given)
    wait_until(lambda: holders(server, ids), "what the second holds is known")
    complete(server, ids + prompt(6, 8))
    assert not first.state["requests"] and second.state["hits"] == [256]


def plain_and_adapted(ids):
    return expected(ids), tokens_after(ids, 4, "fr")


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_adapters_are_named_as_models_are(fakes, serve, kind):  # noqa: F811
    """Requests go to the engines that have the adapter, and share no prefix with others."""
    both, plain = fakes(kind=kind, adapters=["fr", "de"], dp=1), fakes(kind=kind)
    server = serve(both, plain, router_error_band=0)
    wait_until(lambda: "fr" in models_of(server), "the adapter is listed")
    assert models_of(server) == {"tiny": None, "de": "tiny", "fr": "tiny"}
    ids = prompt(1, 128)
    answers = [tokens_of(complete(server, ids, model="fr")) for _ in range(6)]
    assert answers == [plain_and_adapted(ids)[1]] * 6
    assert not plain.state["requests"] and len(both.state["requests"]) == 6
    sent = both.state["requests"][-1]["body"]
    assert sent["lora_path" if kind == "sglang" else "model"] == "fr"
    assert tokens_of(complete(server, ids)) == plain_and_adapted(ids)[0]
    status, _, _ = server.request("POST", "/v1/completions", {"model": "es", "prompt": ids})
    assert status == 404


def models_of(server):
    status, _, data = server.request("GET", "/v1/models")
    assert status == 200
    return {m["id"]: m.get("parent") for m in json.loads(data)["data"]}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_what_adapters_hold_is_known_where_events_tell(fakes, serve, kind):  # noqa: F811
    """SGLang's usual events don't tell adapters apart: theirs are taken for nobody's."""
    first, second = fakes(2, kind=kind, adapters=["fr"], token_s=0.0005)
    server = serve(first, second, router_error_band=0)
    ids, other = prompt(5, 128), prompt(6, 128)
    complete(server, ids, model="fr")
    complete(server, other)
    wait_until(lambda: holders(server, other), "events behind those of the adapter are here")
    assert not holders(server, ids)
    known = {"adapter": "fr"}
    if kind == "vllm":
        assert len(holders(server, ids, **known)) == 1
        for _ in range(4):
            complete(server, ids, model="fr")
        assert sum(first.state["hits"] + second.state["hits"]) == 4 * 96
        metrics = read_metrics(server)
        assert metrics.sum("stator_router_audit_alarms_total") == 0
    else:
        assert not holders(server, ids, **known)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("heeds", [False, True])
def test_priorities_go_to_engines_that_heed_them(fakes, serve, kind, heeds):  # noqa: F811
    engine = fakes(kind=kind, priorities=heeds)
    given = {"engine_priority": True} if heeds and kind == "vllm" else {}
    server = serve(engine, **given)
    ids = prompt(1)
    body = {"model": "tiny", "prompt": ids, "max_tokens": 4, "return_token_ids": True}
    status, _, data = server.request(
        "POST", "/v1/completions", body, headers={"x-stator-priority": "3"}
    )
    assert status == 200 and tokens_of(json.loads(data)) == expected(ids)
    sent = engine.state["requests"][-1]["body"].get("priority")
    assert sent == ((-3 if kind == "vllm" else 3) if heeds else None)


@pytest.mark.parametrize("quirk", ["errors_500", "malformed_sse", "malformed_json"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_goes_wrong_is_no_end(fakes, serve, quirk, stream):  # noqa: F811
    """There is no other one: the client is told so, once, and what comes after it is well is
    served."""
    engine = fakes(quirks=[quirk], fail_after=0)
    server = serve(engine, max_migrations=2)
    ids = prompt(1)
    body = {"model": "tiny", "prompt": ids, "max_tokens": 4, "stream": stream}
    status, headers, data = server.request("POST", "/v1/completions", body)
    assert status == 503 and b"moved to another one 2 times" in data, (status, data)
    assert len(engine.state["requests"]) == 3
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
    bad, good = fakes(quirks=[quirk], fail_after=0), fakes()
    server = serve(bad, good, router_policy="round-robin")
    for seed in range(16):
        ids = prompt(seed)
        assert tokens_of(complete(server, ids)) == expected(ids)
    assert bad.state["requests"] and len(good.state["requests"]) == 16


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


def test_an_engine_with_few_blocks(fakes, serve):  # noqa: F811
    """What it has dropped for others is not counted on."""
    first, second = fakes(2, version="0.32.0", quirks=["few_blocks"])
    server = serve(first, second, router_error_band=0)
    ids = prompt(1, 128)
    complete(server, ids)
    [old] = wait_until(lambda: holders(server, ids), "it is known who has it")
    for seed in range(2, 12):
        complete(server, prompt(seed, 128))
    wait_until(lambda: not holders(server, ids), "its end is known")
    assert old and tokens_of(complete(server, ids)) == expected(ids)
    metrics = read_metrics(server)
    assert metrics.sum("stator_router_audit_alarms_total") == 0


def test_salts_that_events_do_not_show(fakes, serve):  # noqa: F811
    """Blocks of a salted request look like those of a plain one, and are not taken for them."""
    engine = fakes(version="0.14.1", quirks=["hidden_salts"])
    server = serve(engine, engine_events=engine.events, engine_replay=engine.replay)
    ids, plain = prompt(1, 128), prompt(2, 128)
    for _ in range(2):
        complete(server, ids, cache_salt="a")
    complete(server, plain)
    wait_until(lambda: holders(server, plain), "events behind those of the salted ones are here")
    assert not holders(server, ids)
    assert engine.state["hits"] == [96]


def test_an_engine_that_is_up_but_dead(fakes, serve):  # noqa: F811
    dead, alive = fakes(quirks=["up_but_dead"]), fakes()
    server = serve(dead, alive, ready=1, engine_canary="300ms", engine_canary_within="500ms")
    wait_until(
        lambda: sorted(w["state"] for w in server.workers().values()) == ["connecting", "ready"],
        "it is noticed",
    )
    for seed in range(6):
        assert tokens_of(complete(server, prompt(seed))) == expected(prompt(seed))
    dead.set(fail="")
    server.wait_ready_workers(2)


def test_every_quirk_is_tested():
    """Here, or where pictures are, by its name."""
    here = pathlib.Path(__file__)
    text = here.read_text() + (here.parent / "test_engines_media.py").read_text()
    quirks = json.loads((ENGINES / "quirks.json").read_text())["quirks"]
    assert [q for q in quirks if f'"{q}"' not in text] == []


def pair(fleet, kind, engines, options, way="always", **given):
    """A frontend with a worker before each engine, by role."""
    workers = []
    for role, engine in engines.items():
        own = dict(options)
        if role == "aggregated":
            own["engine_connector"] = "any"
        elif own.get("engine_connector") == "mooncake" and role == "prefill":
            own["engine_bootstrap"] = f"127.0.0.1:{engine.address.port}"
        workers.append(
            fleet.worker(
                role[0],
                stator_process.model(),
                role=role,
                engine=f"{kind}={engine.url}",
                engine_canary="0s",
                **own,
            ).launch()
        )
    for worker in workers:
        worker.wait_ready()
    frontend = fleet.frontend(router_disaggregation=way, **given)
    frontend.wait_workers(*(role[0] for role in engines))
    wait_until(lambda: "A pool of workers is served" in frontend.log(), "the model is served")
    return frontend


@pytest.mark.parametrize(
    ("kind", "options", "way"),
    [
        ("vllm", {"engine_connector": "nixl"}, "always"),
        ("vllm", {"engine_connector": "mooncake"}, "always"),
        ("sglang", {}, "always"),
        ("sglang", {}, "conditional"),  # its decoder computes no prompts, however short
        ("trtllm", {}, "always"),
    ],
)
def test_prompts_and_output_on_different_engines(fakes, fleet, kind, options, way):
    """The decoding fake takes KV from nobody but the fake that prefilled: what it answers proves
    that both legs ran, with the engines' own objects."""
    given = {"events": False} if kind == "trtllm" else {}
    if options.get("engine_connector") == "mooncake":
        given["quirks"] = ["mooncake"]
    engines = {role: fakes(kind=kind, role=role, **given) for role in ("prefill", "decode")}
    frontend = pair(fleet, kind, engines, options, way)
    for seed in range(4):
        ids = prompt(seed)
        assert tokens_of(complete(frontend, ids)) == expected(ids)
    for engine in engines.values():
        assert len(engine.state["requests"]) == 4
    first = engines["prefill"]
    wait_until(lambda: not first.state["handed"] and not first.state["pinned"], "all is released")


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("others", [0, 1])
def test_one_half_of_a_pair_fails(fakes, fleet, role, others):
    """The other half is given up at once, not after a minute without a token: the request goes to
    one that does all of it, or, where there is none, to the pair once more."""
    engines = {r: fakes(kind="sglang", role=r) for r in ("prefill", "decode")}
    if others:
        engines["aggregated"] = fakes(kind="sglang")
    frontend = pair(fleet, "sglang", engines, {})
    engines[role].set(fail="500")
    ids = prompt(1)
    body = {"model": "tiny", "prompt": ids, "max_tokens": 4, "return_token_ids": True}
    status, _, data = frontend.request("POST", "/v1/completions", body)
    if others:
        assert status == 200 and tokens_of(json.loads(data)) == expected(ids), data
        assert len(engines["aggregated"].state["requests"]) == 1
    else:
        assert status == 503 and b"Internal server error" in data, (status, data)
        assert len(engines[role].state["requests"]) == 2
    rooms = {r["body"]["bootstrap_room"] for r in engines[role].state["requests"]}
    assert len(rooms) == (1 if others else 2)
    half = engines["decode" if role == "prefill" else "prefill"]
    wait_until(lambda: not half.state["running"], "the other half is given up")
    engines[role].set(fail="")
    ids = prompt(2)
    assert tokens_of(complete(frontend, ids)) == expected(ids)


def test_trtllm_workers_that_register_themselves(fakes, serve):  # noqa: F811
    """Their own HTTP store, served here: a worker each for as long as its heart beats."""
    engines = [fakes(kind="trtllm", role=r, events=False) for r in ("prefill", "decode")]
    server = serve(ready=0, trtllm_store="127.0.0.1:0", router_disaggregation="always")
    said = wait_until(
        lambda: re.search(r"may register themselves.*port=(\d+)", server.log()), "it is served"
    )
    store = http.client.HTTPConnection("127.0.0.1", int(said.group(1)), timeout=60)

    def ask(method, path, body=None):
        store.request(method, path, json.dumps(body) if body else None)
        answer = store.getresponse()
        return answer.status, json.loads(answer.read())

    keys = []
    for number, engine in enumerate(engines):
        worker = {"worker_id": f"w{number}", "host": "127.0.0.1", "port": engine.address.port}
        keys.append(f"/trtllm-disagg/c/workers/w{number}")
        body = {"key": keys[-1], "value": json.dumps({**worker, "role": number}), "ttl": 3600}
        assert ask("POST", "/set", body) == (200, {"result": True})
    server.wait_ready_workers(2)
    wait_until(lambda: "A pool of workers is served" in server.log(), "the model is served")
    ids = prompt(1)
    assert tokens_of(complete(server, ids)) == expected(ids)
    assert [len(e.state["requests"]) for e in engines] == [1, 1]
    assert ask("DELETE", f"/delete?key={keys[1]}")[0] == 200
    wait_until(lambda: len(server.workers()) == 1, "its worker ends")


def test_a_worker_with_a_wrong_set_up_is_given_up(fakes, serve):  # noqa: F811
    engine = fakes(kind="sglang")
    engine.kind = "vllm"  # what is written before its address
    server = serve(engine, ready=0, restart_max="200ms")
    said = "says that its set-up is wrong, and is not started any more"
    wait_until(lambda: said in server.log(), "it is left")
    assert server.log().count("is SGLang, not vLLM: write --engine sglang=") == 5


def test_what_an_engine_has_had_for_long_is_asked_for(fakes, serve):  # noqa: F811
    """Its history is too short to tell of it; a request that passes is told to have it named."""
    engine = fakes(version="0.32.0", quirks=["short_replay"])
    ids = prompt(50, 256)
    for seed in range(50, 60):
        warm(engine, prompt(seed, 256))
    server = serve(engine)
    assert not holders(server, ids)
    complete(server, ids)
    wait_until(lambda: holders(server, ids), "the engine has named it again")


def test_a_prompt_that_a_half_refuses_is_the_clients(fakes, fleet):
    engines = {r: fakes(kind="sglang", role=r) for r in ("prefill", "decode")}
    frontend = pair(fleet, "sglang", engines, {})
    engines["prefill"].set(fail="400")
    body = {"model": "tiny", "prompt": prompt(1), "max_tokens": 4}
    status, _, data = frontend.request("POST", "/v1/completions", body)
    assert status == 400 and b"what this engine doesn't like" in data, (status, data)
    assert len(engines["prefill"].state["requests"]) == 1
    assert [w["state"] for w in frontend.workers().values()] == ["ready", "ready"]
