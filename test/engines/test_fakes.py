"""The fake engines against what real ones were recorded to say, so that they can't drift."""

import json
import os
import pathlib
import threading

import blocks
import pytest
import wire
from fakes import FOLDER, Fake

DATA = pathlib.Path(os.environ.get("STATOR_DATA") or "/nowhere") / "fixtures"
recordings = pytest.mark.skipif(
    not DATA.is_dir(), reason="STATOR_DATA names no folder with recordings of engines"
)


@pytest.fixture
def fake():
    made = []

    def make(*args, **options):
        made.append(Fake(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def shape(value):
    if isinstance(value, dict):
        return {k: shape(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if type(value) in (int, float) else type(value).__name__


def recorded_answer(path):
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        out = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            out += body[: int(size, 16)]
            body = body[int(size, 16) + 2 :]
        body = out
    return int(head.split()[1]), body


def pieces(body):
    return [
        json.loads(line[6:]) if line != b"data: [DONE]" else "done"
        for line in body.split(b"\n")
        if line.startswith(b"data: ")
    ]


def shapes_of(body):
    if body.startswith(b"data: "):
        return [shape(p) for p in pieces(body)]
    return shape(json.loads(body)) if body else None


VERSIONS = [("vllm032_http", "0.32.0"), ("vllm014_http", "0.14.1")]
CASES = ["health", "version", "models", "completions_ids", "completions_ids_stream"]
CASES += ["generate", "generate_stream", "completions_request_id", "kv_event_sources", "err_404"]
CASES += ["err_unknown_model", "err_too_long", "err_bad_token", "dp_rank_header_0"]
CASES += ["dp_rank_header_1", "err_bad_json"]


@recordings
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("folder", "version"), VERSIONS)
def test_http_answers_have_the_recorded_shape(fake, folder, version, case):
    request = json.loads((DATA / folder / f"{case}.request.json").read_text())
    status, body = recorded_answer(DATA / folder / f"{case}.response.http")
    engine = fake(version=version, context=1024, vocabulary=512)
    got = engine.ask(request["method"], request["path"], request["body"], request["headers"])
    assert got[0] == status
    assert shapes_of(got[1]) == shapes_of(body)


@recordings
@pytest.mark.parametrize(
    "case", ["completions_3blocks", "generate_top_level", "completions_stream"]
)
def test_transfers_have_the_recorded_shape(fake, case):
    """Prefill and decode, NIXL: what the one gives is what the other takes."""
    folder = DATA / "vllm032_pd_nixl"
    request = json.loads((folder / f"{case}.1prefill.request.json").read_text())
    _, body = recorded_answer(folder / f"{case}.1prefill.response.http")
    prefill, decode = fake(role="prefill"), fake(role="decode")
    status, given = prefill.json("POST", request["path"], request["body"])
    assert status == 200 and shape(given) == shape(json.loads(body))
    assert prefill.state["handed"] == 1
    body = {**request["body"], "kv_transfer_params": given["kv_transfer_params"]}
    status, answer = decode.json("POST", request["path"], body)
    assert status == 200 and prefill.state["handed"] == 0
    assert answer["choices"][0]["token_ids"] == given["choices"][0]["token_ids"]
    # It is claimed once.
    assert decode.ask("POST", request["path"], body)[0] == 500


@recordings
def test_an_incomplete_transfer_ends_the_decoder_as_recorded(fake):
    folder = DATA / "vllm032_pd_nixl"
    request = json.loads((folder / "fail_incomplete_params.request.json").read_text())
    status, body = recorded_answer(folder / "fail_incomplete_params.response.http")
    decode = fake(role="decode")
    got = decode.ask("POST", request["path"], request["body"])
    assert (got[0], shapes_of(got[1])) == (status, shapes_of(body))
    assert decode.process.wait(20) != 0


def test_a_transfer_without_its_source_hangs_and_then_ends_the_decoder(fake):
    decode = fake(role="decode")
    params = {"do_remote_prefill": True, "remote_block_ids": [[1, 2, 3]]}
    connection = decode.connect()
    body = {"model": "tiny", "prompt": [1, 2, 3], "kv_transfer_params": params}
    connection.request("POST", "/v1/completions", json.dumps(body))
    assert decode.ask("GET", "/health")[0] == 200
    while not decode.state["requests"]:
        pass
    connection.close()
    assert decode.process.wait(20) != 0


def test_an_unclaimed_transfer_ends_with_its_lease(fake):
    prefill = fake(role="prefill", lease_s=0.5)
    params = {"do_remote_decode": True}
    body = {"model": "tiny", "prompt": list(range(100)), "kv_transfer_params": params}
    assert prefill.ask("POST", "/v1/completions", {**body, "max_tokens": 1})[0] == 200
    while prefill.state["handed"]:
        pass
    assert prefill.state["pinned"] == 0


@recordings
def test_an_encoder_answers_as_recorded(fake):
    request = json.loads((DATA / "vllm032_epd" / "1encode.request.json").read_text())
    _, body = recorded_answer(DATA / "vllm032_epd" / "1encode.response.http")
    request["body"]["model"] = "tiny"
    _, got = fake(role="encode").json("POST", request["path"], request["body"])
    assert shape(got) == shape(json.loads(body))


def events_of(engine, prompts, rank=0):
    """Its events' batches after these prompts, from a replay."""
    for ids in prompts:
        path, body = "/v1/completions", {"model": "tiny", "prompt": ids, "max_tokens": 1}
        if engine.kind == "sglang":
            path, body = "/generate", {"input_ids": ids, "sampling_params": {"max_new_tokens": 1}}
        headers = {"X-data-parallel-rank": str(rank)}
        assert engine.ask("POST", path, body, headers)[0] == 200
    return replayed(engine, 0, rank)[:-1]


def replayed(engine, first, rank=0):
    client = wire.Client(engine.replay[rank], "DEALER")
    client.send([b"", first.to_bytes(8, "big")])
    out = []
    while not out or out[-1][-2] != wire.END:
        out.append(client.receive())
    client.close()
    return out


def kinds(batches):
    """The shape of each kind of event."""
    out = {}
    for batch in batches:
        ts, events, rank = wire.unpack(batch)
        assert type(ts) is float and type(rank) is int
        for event in events:
            name = event[0] if isinstance(event, list) else event["type"]
            # Parents may be none, extra keys too.
            if isinstance(event, list):
                form = [type(v).__name__ for v in event]
                if name == "BlockStored":
                    form[2] = "hash"
            else:
                form = {k: type(v).__name__ for k, v in event.items()}
                if name == "BlockStored":
                    form["parent_block_hash"] = "hash"
                    form.update({k: "key" for k in form if k == "extra_keys"})
                    form["of"] = type(event["block_hashes"][0]).__name__
            out.setdefault(name, form)
    return out


FILES = [
    ("vllm032_kv_events_map_int_pub.bin", {"version": "0.32.0"}),
    ("vllm014_kv_events_array_int_pub.bin", {"version": "0.14.1"}),
    ("sglang0523_kv_events_map_default_pub.bin", {"kind": "sglang"}),
]


@recordings
@pytest.mark.parametrize(("file", "options"), FILES)
def test_events_have_the_recorded_shape(fake, file, options):
    frames = wire.recorded(DATA / file)
    expected = kinds(f[-1] for _, f in frames)
    engine = fake(blocks=8, **options)
    page = json.loads(json.dumps(engine.set()[1]))["page"]
    prompts = [[seed * 1000 + i for i in range(page * 5 + 1)] for seed in range(1, 4)]
    got = events_of(engine, prompts)
    reset = "/flush_cache" if engine.kind == "sglang" else "/reset_prefix_cache"
    engine.ask("POST", reset, {})
    got = events_of(engine, [prompts[0]])
    for name, form in kinds(f[-1] for f in got).items():
        assert form == expected[name], name
    assert set(kinds(f[-1] for f in got)) == set(expected)


@recordings
@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("vllm032_kv_events_map_int_replay0.bin", "0.32.0"),
        ("vllm014_kv_events_array_int_replay0.bin", "0.14.1"),
    ],
)
def test_replays_have_the_recorded_frames(fake, file, version):
    frames = [f for _, f in wire.recorded(DATA / file)]
    engine = fake(version=version)
    events_of(engine, [list(range(100))])
    got = replayed(engine, 0)
    assert [len(f) for f in (got[0], got[-1])] == [len(f) for f in (frames[0], frames[-1])]
    assert got[-1] == frames[-1]
    assert [len(f) for f in replayed(engine, 99)] == [len(got[-1])]


@recordings
def test_hashes_are_the_recorded_ones():
    vectors = json.loads((DATA / "block_hash_vectors.json").read_text())["vllm"]
    assert blocks.ROOT.hex() == vectors["none_hash"]
    for b in vectors["blocks"]:
        digest = blocks.vllm_digest(bytes.fromhex(b["parent"]), b["tokens"], b["cache_salt"])
        assert digest.hex() == b["digest"] and blocks.shown(digest, "int") == b["event_int"]
    first = blocks.sglang_digest(None, list(range(1000, 1016)))
    assert blocks.shown(first, "signed") == 5740554423035903369


def test_ranks_count_their_batches_alone(fake):
    engine = fake(dp=2)
    assert len(set(engine.events)) == 2
    for rank in (0, 1, 1):
        start = rank * 50 + engine.state["queries"][rank]
        events_of(engine, [list(range(start, start + 70))], rank)
    for rank, count in ((0, 1), (1, 2)):
        batches = replayed(engine, 0, rank)[:-1]
        assert [int.from_bytes(b[-2], "big") for b in batches] == list(range(count))
        assert all(wire.unpack(b[-1])[2] == rank for b in batches)


def test_removals_go_before_what_is_stored_and_from_the_leaf_on(fake):
    engine = fake(blocks=4, page=16)
    got = events_of(engine, [list(range(64)), list(range(500, 548))])
    first, second = (wire.unpack(b[-1])[1] for b in got)
    [stored] = first
    removed = [e["block_hashes"] for e in second if e["type"] == "BlockRemoved"]
    assert [[h] for h in stored["block_hashes"][::-1][:3]] == removed
    assert second[-1]["type"] == "BlockStored"


@pytest.mark.parametrize(
    ("quirk", "of"), [("bytes_hashes", bytes), ("array_events", list), ("page_1", int)]
)
def test_encodings(fake, quirk, of):
    engine = fake(quirks=[quirk])
    [batch] = events_of(engine, [list(range(1, 40))])
    [event] = wire.unpack(batch[-1])[1]
    if quirk == "array_events":
        assert isinstance(event, of)
    elif quirk == "bytes_hashes":
        assert {(type(h), len(h)) for h in event["block_hashes"]} == {(of, 32)}
    else:
        assert event["block_size"] == 1 and len(event["block_hashes"]) == 39


def test_a_replay_that_is_too_short(fake):
    engine = fake(quirks=["short_replay"])
    got = events_of(engine, [[n] * 40 for n in range(1, 6)])
    assert [int.from_bytes(b[-2], "big") for b in got] == [3, 4]


@pytest.mark.parametrize("mode", ["cumulative", "incremental"])
def test_sglang_streams(fake, mode):
    quirks = ["incremental_output"] if mode == "incremental" else []
    engine = fake("sglang", quirks=quirks)
    sampling = {"max_new_tokens": 3}
    body = {"input_ids": [1, 2, 3], "sampling_params": sampling, "stream": True}
    got = pieces(engine.ask("POST", "/generate", body)[1])
    assert got.pop() == "done"
    lengths = [len(p["output_ids"]) for p in got]
    assert lengths == ([1, 1, 1] if mode == "incremental" else [1, 2, 3])
    assert got[-1]["meta_info"]["finish_reason"] == {"type": "length", "length": 3}


def test_sglang_legs_meet_in_their_room(fake):
    prefill = fake("sglang", role="prefill")
    decode = fake("sglang", role="decode", match_s=0.5)
    info = prefill.json("GET", "/server_info")[1]
    body = {
        "input_ids": list(range(20)),
        "sampling_params": {"max_new_tokens": 2},
        "bootstrap_host": "127.0.0.1",
        "bootstrap_port": info["disaggregation_bootstrap_port"],
        "bootstrap_room": 7,
    }
    # Alone it waits until its time is over.
    assert decode.ask("POST", "/generate", body)[0] == 500
    decode.set(match_s=30)
    answers = []
    threads = [
        threading.Thread(target=lambda e=e: answers.append(e.ask("POST", "/generate", body)[0]))
        for e in (prefill, decode)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [200, 200]


def test_trtllm_refuses_what_it_does_not_know(fake):
    engine = fake("trtllm")
    body = {"model": "tiny", "prompt": [1, 2], "max_tokens": 2}
    assert engine.ask("POST", "/v1/completions", body)[0] == 200
    status, said = engine.json("POST", "/v1/completions", {**body, "cache_salt": "x"})
    assert status == 400 and "not permitted" in said["message"]


def test_trtllm_events_are_drained(fake):
    engine = fake("trtllm")
    body = {"model": "tiny", "prompt": list(range(1, 70)), "max_tokens": 2}
    engine.ask("POST", "/v1/completions", body)
    got = engine.json("POST", "/kv_cache_events", {})[1]
    assert [e["data"]["type"] for e in got] == ["created", "stored"]
    assert [e["event_id"] for e in got] == [0, 1]
    assert len(got[1]["data"]["blocks"]) == 2
    assert engine.json("POST", "/kv_cache_events", {})[1] == []


def test_trtllm_context_and_generation(fake):
    context, generation = fake("trtllm"), fake("trtllm")
    body = {"model": "tiny", "prompt": list(range(1, 70)), "max_tokens": 3}
    params = {"request_type": "context_only"}
    first = {**body, "max_tokens": 1, "disaggregated_params": params}
    choice = context.json("POST", "/v1/completions", first)[1]["choices"][0]
    params = {**choice["disaggregated_params"], "request_type": "generation_only"}
    second = {**body, "disaggregated_params": params}
    status, answer = generation.json("POST", "/v1/completions", second)
    assert status == 200
    assert answer["choices"][0]["token_ids"][0] == params["first_gen_tokens"][0]
    broken = {**params, "encoded_opaque_state": "AAAA"}
    body = {**body, "disaggregated_params": broken}
    assert generation.ask("POST", "/v1/completions", body)[0] == 500


def test_each_quirk_of_the_table_can_be_asked_for(fake):
    table = json.loads((FOLDER / "quirks.json").read_text())
    engine = fake()
    known = set(engine.set()[1])
    for name, traits in table["quirks"].items():
        assert set(traits) <= known, name
