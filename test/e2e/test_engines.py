"""Unmodified engines behind Stator: `stator serve` and `stator worker` with --engine vllm=URL."""

import json
import re
import subprocess

import pytest
import stator_process
from conftest import read_metrics, wait_until
from small_engine import SmallEngine, token
from test_serve_workers import SupervisedServer

FAST = {"engine_canary": "0s", "threads": 1}


@pytest.fixture
def engines():
    """Makes engines; they end with the test."""
    made = []

    def make(count=1, **options):
        made.extend(SmallEngine(**options) for _ in range(count))
        return made[-count:] if count > 1 else made[-1]

    yield make
    for engine in made:
        engine.stop()


@pytest.fixture
def serve(fleet):
    """`stator serve` in front of engines, with the real model's tokenizer."""

    def start(*attached, ready=None, **options):
        server = SupervisedServer(
            stator_process.model(),
            folder=fleet.folder,
            engine=[f"{e.kind}={e.url}" for e in attached],
            **{**FAST, **options},
        )
        fleet.started.append(server)
        server.launch()
        wait_until(lambda: server.is_ready() or server.port, "it listens")
        if ready != 0:
            server.wait_ready()
            server.wait_ready_workers(ready or len(attached))
        return server

    return start


def run(*args):
    done = subprocess.run(
        [stator_process.binary(), *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=stator_process.child_environment(),
    )
    return done.returncode, done.stdout + done.stderr


def complete(server, ids, most=4, **fields):
    body = {"prompt": ids, "max_tokens": most, "return_token_ids": True, **fields}
    status, _, data = server.request("POST", "/v1/completions", {"model": "tiny", **body})
    assert status == 200, data
    return json.loads(data)


def tokens_of(answer):
    return answer["choices"][0]["token_ids"]


def prompt(seed, length=100):
    return [300 + (seed * 97 + i * 13) % 199 for i in range(length)]


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("stream", [False, True])
def test_chat_and_completion(engines, serve, kind, stream):
    engine = engines(kind=kind)
    server = serve(engine)
    ids = prompt(1)
    assert tokens_of(complete(server, ids)) == [token(ids, i) for i in range(4)]
    body = {"model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": "Hello"}]}
    status, _, data = server.request("POST", "/v1/chat/completions", {**body, "stream": stream})
    assert status == 200
    assert (b"data: [DONE]" in data) == stream
    sent = engine.requests[-1]
    assert sent["path"] == ("/generate" if kind == "sglang" else "/inference/v1/generate")
    # What the engine got is the chat template's text as tokens.
    assert len(sent["body"].get("token_ids") or sent["body"]["input_ids"]) > 5


@pytest.mark.parametrize(
    ("version", "streams_ids", "path"),
    [
        ("0.32.0", True, "/inference/v1/generate"),
        ("0.32.0", False, "/v1/completions"),
        ("0.14.1", True, "/v1/completions"),  # its route is there and does not stream
    ],
)
def test_the_route_is_the_one_that_streams_tokens(engines, serve, version, streams_ids, path):
    engine = engines(version=version)
    engine.streams_ids = streams_ids
    server = serve(engine)
    ids = prompt(2)
    assert tokens_of(complete(server, ids)) == [token(ids, i) for i in range(4)]
    assert engine.requests[-1]["path"] == path


def shared_prefixes(server, families, turns):
    """Prompts of each family in turns. The tokens that answers say were cached."""
    cached = 0
    for turn in range(turns):
        for number, family in enumerate(families):
            answer = complete(server, family + prompt(1000 + turn * 8 + number, 20), most=2)
            cached += answer["usage"].get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return cached


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_prefixes_go_to_the_engine_that_has_them(engines, serve, kind):
    """Two engines: each family stays where it began, because the engines' own events say so, and
    the engines' own hits show it. In turns to either, four of eight would miss each time."""
    two = engines(2, kind=kind)
    for engine in two:
        engine.token_s = 0.0002
    server = serve(*two, router_error_band=0)
    cached = shared_prefixes(server, [prompt(seed, 512) for seed in range(8)], turns=4)
    # What answers, router and engines say is the same.
    assert cached == sum(e.hits[0] for e in two)
    metrics = read_metrics(server)
    assert metrics.sum("stator_router_cached_tokens_total") == cached
    assert metrics.sum("stator_router_audit_alarms_total") == 0
    # A few at most before the first events are here.
    assert cached >= 20 * 512 and all(e.requests for e in two)


def test_prefixes_that_another_client_left_are_known(engines, serve):
    """The engine's history is asked for, so what it did before counts."""
    first, second = engines(2)
    for engine in (first, second):
        engine.token_s = 0.001
    # Each begins with a token of its own.
    families = [[300 + seed] + prompt(seed, 127) for seed in range(60)]
    for family in families:
        second.look_up(family, 0)
    server = serve(first, second, router_error_band=0)

    def known():
        complete(server, families.pop() + prompt(6, 8))
        return second.hits[0] > 0

    wait_until(known, "the router knows what the second holds")
    before = len(first.requests)
    for family in families[:5]:
        complete(server, family + prompt(7, 8))
    assert len(first.requests) == before and second.hits[0] == 6 * 128


def test_an_engine_that_is_killed_and_comes_back(engines, serve):
    one, two = engines(2)
    server = serve(one, two)
    for seed in range(6):
        complete(server, prompt(seed))
    assert one.requests and two.requests
    two.stop()
    # Whatever is lost goes on at the other.
    for seed in range(12):
        assert len(tokens_of(complete(server, prompt(seed)))) == 4
    wait_until(
        lambda: sorted(w["state"] for w in server.workers().values()) == ["connecting", "ready"],
        "its worker takes no requests",
    )
    before = len(two.requests)
    two.start()
    server.wait_ready_workers(2)

    def used():
        for seed in range(20, 30):
            complete(server, prompt(seed))
        return len(two.requests) > before

    wait_until(used, "the engine gets requests again")


def test_an_engine_that_is_up_but_dead(engines, serve):
    one, two = engines(2)
    server = serve(one, two, engine_canary="300ms", engine_canary_within="500ms")
    two.stuck.set()
    wait_until(
        lambda: sorted(w["state"] for w in server.workers().values()) == ["connecting", "ready"],
        "the dead engine's worker takes no requests",
    )
    for seed in range(6):
        assert len(tokens_of(complete(server, prompt(seed)))) == 4
    two.stuck.clear()
    server.wait_ready_workers(2)


def test_two_ranks_behind_one_address(engines, serve):
    engine = engines(ranks=2)
    engine.token_s = 0.0002
    server = serve(engine, ready=1, router_error_band=0)
    [worker] = server.workers().values()
    assert len(worker["ranks"]) == 2
    cached = shared_prefixes(server, [prompt(seed, 512) for seed in range(6)], turns=3)
    assert {r["rank"] for r in engine.requests} == {0, 1}
    assert cached == sum(engine.hits) and cached >= 9 * 512


def test_an_engine_that_is_not_there_yet(engines, serve):
    engine = engines()
    engine.stop()
    server = serve(engine, ready=0)
    wait_until(lambda: "Waiting for the engine" in server.log(), "it says that it waits")
    engine.start()
    server.wait_ready()
    ids = prompt(3)
    assert tokens_of(complete(server, ids)) == [token(ids, i) for i in range(4)]


def test_waiting_has_an_end_where_one_is_given():
    code, text = run(
        *("worker", "--engine", "vllm=http://127.0.0.1:1", "--engine-wait", "1s"),
        *("--announce", "off", "--listen", "127.0.0.1:0", "--model", stator_process.model()),
    )
    assert code == 2
    assert "http://127.0.0.1:1 does not answer" in text and "--engine-wait" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--engine", "vlm=http://127.0.0.1:1"], "vllm=URL"),
        (["--engine", "vllm=127.0.0.1:1"], "vllm=http://127.0.0.1:8000"),
        (["--engine", "vllm"], "vllm=http://127.0.0.1:8000"),
        (["--engine", "vllm=http://a:1", "--workers", "2"], "--workers"),
        (["--engine", "vllm=http://a:1", "--engine-events", "a,b"], "2 addresses for 1 engines"),
    ],
)
def test_what_can_not_be_meant_is_explained(flags, said):
    code, text = run("serve", "--port", "0", *flags)
    assert code == 2 and said in text, text


def alone(engine, *flags):
    """A worker that ends by itself."""
    return run(
        *("worker", "--engine", f"vllm={engine.url}", "--announce", "off"),
        *("--listen", "127.0.0.1:0", "--events", "off", *flags),
    )


def test_another_kind_of_engine_is_named(engines):
    code, text = alone(engines(kind="sglang"), "--model", stator_process.model())
    assert code == 78 and "is SGLang, not vLLM: write --engine sglang=" in text


def test_a_tokenizer_that_is_not_here_is_asked_for(engines):
    code, text = alone(engines())
    assert code == 78 and "--model-dir" in text and "/nowhere/tiny" in text


def test_a_key_that_is_wanted_is_asked_for(engines, serve, tmp_path):
    engine = engines()
    engine.key = "secret"
    code, text = alone(engine, "--model", stator_process.model())
    assert code == 78 and "--engine-key-file" in text
    (tmp_path / "key").write_text("secret\n")
    server = serve(engine, engine_key_file=tmp_path / "key")
    ids = prompt(4)
    assert tokens_of(complete(server, ids)) == [token(ids, i) for i in range(4)]


def test_an_engine_without_events_serves_and_is_told_the_flag(engines, serve):
    engine = engines(events=False)
    server = serve(engine)
    complete(server, prompt(7))
    assert re.search(r"--kv-events-config .{.*enable_kv_cache_events", server.log())


def test_without_events_prompts_go_where_their_prefix_was_sent(engines, serve):
    two = engines(2, events=False)
    for engine in two:
        engine.token_s = 0.0002
    server = serve(*two, router_error_band=0)
    families = [prompt(seed, 512) for seed in range(6)]
    for turn in range(3):
        for number, family in enumerate(families):
            complete(server, family + prompt(1000 + turn * 8 + number, 20), most=2)
    assert sum(e.hits[0] for e in two) == 6 * 2 * 512
    assert all(e.requests for e in two)


def test_events_of_an_engine_that_does_not_tell_where(engines, serve):
    """0.14 has no route for it: the address is given."""
    two = engines(2, version="0.14.1")
    for engine in two:
        engine.tells_sources = False
    server = serve(
        *two,
        engine_events=[f"tcp://127.0.0.1:{e.event_ports[0][0]}" for e in two],
        engine_replay=[f"tcp://127.0.0.1:{e.event_ports[0][1]}" for e in two],
    )
    followed = [f"followed. from=tcp://127.0.0.1:{e.event_ports[0][0]} " for e in two]
    wait_until(
        lambda: all(words in server.log() for words in followed), "both engines are followed"
    )


def test_what_clients_say_of_transfers_reaches_no_engine(engines, serve):
    engine = engines()
    server = serve(engine)
    evil = {
        "kv_transfer_params": {"do_remote_prefill": True},
        "ec_transfer_params": {"x": {}},
        "bootstrap_host": "10.0.0.1",
        "bootstrap_port": 8998,
        "bootstrap_room": 7,
        "disaggregated_params": {"request_type": "context_only"},
        "vllm_xargs": {"kv_transfer_params": {"do_remote_prefill": True}},
        "sampling_params": {"extra_args": {"kv_transfer_params": {}}},
    }
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    for path, body in [
        ("/v1/completions", {"prompt": prompt(8)}),
        ("/v1/chat/completions", chat),
    ]:
        for fields in [evil, *({k: v} for k, v in evil.items())]:
            body_ = {"model": "tiny", "max_tokens": 2, **body, **fields}
            status, _, data = server.request("POST", path, body_)
            assert status in (200, 400), data
    complete(server, prompt(9))
    words = ("transfer", "bootstrap", "disagg", "remote_prefill", "extra_args", "xargs")
    for request in engine.requests:
        assert not [w for w in words if w in json.dumps(request["body"])], request


def test_a_sidecar_shows_how_its_engine_is(engines, fleet):
    engine = engines()
    worker = fleet.worker(
        "beside",
        stator_process.model(),
        engine=f"vllm={engine.url}",
        engine_canary="0s",
        worker_http="127.0.0.1:0",
    ).start()
    port = int(re.search(r"Health and metrics are shown.*port=(\d+)", worker.log()).group(1))
    door = stator_process.ChildServer()
    door.port = port

    def health():
        status, _, body = door.request("GET", "/health")
        return status, json.loads(body)

    wait_until(lambda: health()[1]["status"] == "ready", "all is well")
    engine.stop()
    status, body = wait_until(
        lambda: health() if health()[0] == 503 else None, "the engine is missed"
    )
    assert body["status"] == "degraded" and engine.url in body["concerns"][0]
    engine.start()
    wait_until(lambda: health()[1]["status"] == "ready", "all is well again")
    door.stop()


def test_a_topology_names_engines(engines, serve, fleet):
    one, two = engines(2)
    path = fleet.folder / "topology.yaml"
    path.write_text(
        f"""workers:
  - name: left
    options:
      engine: {{kind: "vllm={one.url}", canary: 0}}
  - name: right
    options:
      engine: {{kind: ["vllm={two.url}"], canary: 0}}
"""
    )
    server = SupervisedServer(
        stator_process.model(), folder=fleet.folder, topology=path, threads=1
    )
    fleet.started.append(server)
    server.launch()
    server.wait_ready()
    server.wait_ready_workers(2)
    for seed in range(8):
        complete(server, prompt(seed))
    assert one.requests and two.requests


def test_another_tokenizer_than_the_engines_is_noticed(engines, serve):
    engine = engines()
    engine.tokenize = [1, 2, 3]
    assert "gives other ids than the engine's own" in serve(engine).log()


def test_an_engine_of_texts_is_relayed_to(engines, serve):
    tokens, texts = engines(2)
    texts.model = "other"
    texts.kind = "openai"
    server = serve(tokens, texts, ready=1)
    ids = prompt(1)
    body = {"model": "other", "prompt": ids, "max_tokens": 2, "stream": True}

    def relayed():
        status, _, data = server.request("POST", "/v1/completions", body)
        return data if status == 200 else None

    assert b"token_ids" in wait_until(relayed, "the other model is served")
    assert texts.requests[-1]["body"] == body
    wait_until(lambda: "A pool of workers is served" in server.log(), "the first is served")
    assert tokens_of(complete(server, ids)) == [token(ids, i) for i in range(4)]


def test_what_an_engine_held_before_its_end_is_not_counted_on(engines, serve):
    """One engine restarts with an empty cache: predictions and the engine's own numbers go on to
    agree."""
    engine = engines()
    server = serve(engine)
    ids = prompt(1, 256)
    for tail in range(3):
        complete(server, ids + prompt(10 + tail, 8))
    engine.stop()
    wait_until(lambda: "An engine's KV events are gone" in server.log(), "its end is noticed")
    engine.start()
    wait_until(lambda: "An engine's KV events are back" in server.log(), "it is followed again")
    server.wait_ready_workers(1)
    before = read_metrics(server).sum("stator_router_predicted_cached_tokens_total")
    answer = complete(server, ids + prompt(20, 8))
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert read_metrics(server).sum("stator_router_predicted_cached_tokens_total") == before
