"""Pictures in chats to unmodified engines: whole requests, encoders apart, what fails on the way.

The fakes' tokens are a function of the pictures that were really there (test/engines/vision.py), so
that a wrong, a missing or a mistaken one is another answer.
"""

import http.client
import json
import pathlib
import re
import sys

import pytest
import stator_process
from conftest import wait_until
from pictures import clip, data_url, png
from test_engine_quirks import fakes  # noqa: F401
from test_engines import FAST, run, serve  # noqa: F401
from test_model_folders import write_folder
from test_serve_workers import SupervisedServer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "engines"))

import vision  # noqa: E402
from fake_engine import tokens_after  # noqa: E402

RED = (84, 56, lambda x, y: (250, 3 * x % 256, 9))
BLUE = (56, 56, lambda x, y: (7, 2 * y, 240))


def content(picture):
    width, height, pixel = picture
    rgb = b"".join(bytes(pixel(x, y)) for y in range(height) for x in range(width))
    return vision.content_digest(width, height, rgb)


def rows(picture):
    return picture[0] // 14 * (picture[1] // 14) // 4


def part(picture):
    return {"type": "image_url", "image_url": {"url": data_url(png(*picture))}}


def chat(server, *parts, most=6, **fields):
    words = [p if isinstance(p, dict) else {"type": "text", "text": p} for p in parts]
    body = {"model": "tiny", "max_tokens": most, "temperature": 0, "return_token_ids": True}
    body["messages"] = [{"role": "user", "content": words}]
    status, _, data = server.request("POST", "/v1/chat/completions", {**body, **fields})
    return status, json.loads(data)


def tokens_of(answer):
    return answer["choices"][0]["token_ids"]


def generated(engine):
    """The bodies of requests that generate."""
    routes = ("/inference/v1/generate", "/generate")
    return [r["body"] for r in engine.state["requests"] if r["path"] in routes]


def expected(body, pictures, most=6):
    """What an engine that saw these pictures answers to this body."""
    placed = []
    for n, picture in enumerate(pictures):
        place = body["features"]["mm_placeholders"]["image"][n]
        placed.append((content(picture), place["offset"], place["length"]))
    return tokens_after(vision.effective(body["token_ids"], placed), most)


@pytest.fixture
def vllm(fakes):  # noqa: F811
    return lambda **options: fakes(quirks=["reads_pictures"], **options)


def test_a_picture_to_vllm(vllm, serve):  # noqa: F811
    engine = vllm()
    server = serve(engine)
    status, answer = chat(server, part(RED), "What is this?")
    assert status == 200, answer
    body = generated(engine)[-1]
    assert body["features"]["mm_hashes"] == {"image": [content(RED)]}
    assert [p["length"] for p in body["features"]["mm_placeholders"]["image"]] == [rows(RED)]
    assert tokens_of(answer) == expected(body, [RED])
    assert answer["usage"]["prompt_tokens"] == len(body["token_ids"])
    # Another picture, another answer; the same one is rendered once.
    assert tokens_of(chat(server, part(BLUE), "What is this?")[1]) != tokens_of(answer)
    assert tokens_of(chat(server, part(RED), "What is this?")[1]) == tokens_of(answer)
    asked = [r["path"] for r in engine.state["requests"]]
    assert asked.count("/v1/chat/completions/render") == 4  # two probes, and one for each


def test_two_pictures_keep_their_order(vllm, serve):  # noqa: F811
    engine = vllm()
    server = serve(engine)
    both = []
    for pictures in ((RED, BLUE), (BLUE, RED), (RED, RED)):
        parts = [part(pictures[0]), "and", part(pictures[1])]
        status, answer = chat(server, *parts)
        assert status == 200, answer
        body = generated(engine)[-1]
        assert body["features"]["mm_hashes"]["image"] == [content(p) for p in pictures]
        assert tokens_of(answer) == expected(body, pictures)
        both.append(tokens_of(answer))
    assert both[0] != both[1] != both[2]


def test_a_stream_with_a_picture(vllm, serve):  # noqa: F811
    engine = vllm()
    server = serve(engine)
    body = {"model": "tiny", "max_tokens": 4, "temperature": 0, "stream": True}
    body["messages"] = [{"role": "user", "content": [part(RED)]}]
    status, _, data = server.request("POST", "/v1/chat/completions", body)
    assert status == 200 and b"data: [DONE]" in data


def test_pictures_are_routed_by_what_engines_hold(vllm, serve):  # noqa: F811
    """The engine's events name pictures as prompts do: the second request finds the first one's
    blocks, and the router knew it."""
    engines = [vllm() for _ in range(2)]
    server = serve(*engines, router_error_band=0)
    large = (336, 336, lambda x, y: (x % 256, y % 256, 77))
    other = (336, 336, lambda x, y: (y % 256, x % 256, 33))
    for picture in (large, other):
        for turn in range(3):
            status, answer = chat(server, part(picture), f"Question {turn} about it, please.")
            assert status == 200, answer
        details = answer["usage"].get("prompt_tokens_details") or {}
        assert details.get("cached_tokens", 0) >= 128, answer["usage"]
    assert sum(sum(e.state["hits"]) for e in engines) >= 4 * 128


def test_a_video_to_vllm(vllm, serve):  # noqa: F811
    engine = vllm(video=True)
    server = serve(engine)
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    film = data_url(clip(colours), "video/avi")
    film = {"type": "video_url", "video_url": {"url": film}}
    status, answer = chat(server, film, "What happens?")
    if status == 400 and "no stator-video-decode" in answer["error"]["message"]:
        pytest.skip("built without FFmpeg's libraries")
    assert status == 200, answer
    assert "video" in generated(engine)[-1]["features"]["mm_hashes"]


def test_a_video_to_an_engine_without(vllm, serve):  # noqa: F811
    server = serve(vllm())
    film = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    status, answer = chat(server, film)
    assert status == 400 and "video" in answer["error"]["message"], answer


@pytest.mark.parametrize("quirk", ["renders_nothing", "no_generate_route"])
def test_a_vllm_that_can_be_given_no_pictures(fakes, serve, quirk):  # noqa: F811
    server = serve(fakes(quirks=[quirk]))
    status, answer = chat(server, part(RED), "What is this?")
    assert status == 400 and "image" in answer["error"]["message"], answer


def test_what_a_client_says_of_embeddings_goes_nowhere(vllm, serve):  # noqa: F811
    engine = vllm()
    server = serve(engine)
    made_up = {content(RED): {"peer_host": "10.0.0.1", "peer_port": 1}}
    fields = {"ec_transfer_params": made_up, "vllm_xargs": {"ec_transfer_params": made_up}}
    status, answer = chat(server, part(RED), **fields)
    assert status in (200, 400), answer
    for request in engine.state["requests"]:
        assert "peer_host" not in json.dumps(request["body"])


# Encoders apart.


def worker(fleet, name, engine, role, **options):
    return fleet.worker(
        name,
        model_path=stator_process.model(),
        role=role,
        engine=f"vllm={engine.url}",
        **{**FAST, **options},
    )


@pytest.fixture
def epd(fleet, vllm, tmp_path):
    """Encoders, and one that computes the prompts; or with `split` one for each half."""

    def start(encoders=1, split=False, encoder=None, **options):
        folder = str(tmp_path)
        shared = {"served_model_name": "tiny"}
        roles = [("whole", None)]
        if split:
            shared["engine_connector"] = "nixl"
            roles = [("prefill", "prefill"), ("decode", "decode")]
        engines, workers = {}, []
        for number in range(encoders):
            name = f"e{number}"
            engines[name] = vllm(role="encode", ec_dir=folder, events=False, **(encoder or {}))
            workers.append(worker(fleet, name, engines[name], "encode", **shared))
        for name, role in roles:
            own = {} if role == "decode" else {"ec_dir": folder}
            engines[name] = vllm(role=role, **own)
            workers.append(
                worker(fleet, name, engines[name], role or "aggregated", **shared, **options)
            )
        for w in workers:
            w.launch()
        for w in workers:
            w.wait_ready()
        front = fleet.frontend(router_disaggregation="always" if split else "conditional")
        front.wait_workers(*(w.name for w in workers))
        return front, engines

    return start


def test_an_encoder_apart_answers_as_one_engine(epd, vllm, serve):  # noqa: F811
    alone = serve(vllm())
    front, engines = epd()
    for pictures in ((RED,), (BLUE, RED), (RED, RED)):
        parts = [*map(part, pictures), "What is this?"]
        status, answer = chat(front, *parts)
        assert status == 200, answer
        assert tokens_of(answer) == tokens_of(chat(alone, *parts)[1])
    encodings = engines["whole"].state["encodings"]
    assert encodings["elsewhere"] == 5 and encodings["here"] == 0, encodings
    assert engines["e0"].state["encodings"]["made"] >= 3
    params = generated(engines["whole"])[-1]["sampling_params"]["extra_args"]["ec_transfer_params"]
    assert params == {
        content(RED): {"item_indices": [0], "metadata": {"image_grid_thw": [1, 4, 6]}}
    }


def test_encode_prefill_and_decode_apart(epd, vllm, serve):  # noqa: F811
    alone = serve(vllm())
    front, engines = epd(split=True)
    status, answer = chat(front, part(RED), "and", part(BLUE))
    assert status == 200, answer
    assert tokens_of(answer) == tokens_of(chat(alone, part(RED), "and", part(BLUE))[1])
    assert engines["prefill"].state["encodings"]["elsewhere"] == 2
    body = generated(engines["decode"])[-1]
    # It fetches KV, and needs no more than to know where the pictures stand.
    assert "kwargs_data" not in body["features"] and len(generated(engines["decode"])) == 1
    assert body["sampling_params"]["extra_args"]["kv_transfer_params"]["remote_engine_id"]


def test_items_are_encoded_by_several(epd):
    front, engines = epd(encoders=2, encoder={"encode_s": 0.3})
    pictures = [(84, 56 + 28 * n, lambda x, y: (x, y, 5)) for n in range(6)]
    status, answer = chat(front, *map(part, pictures))
    assert status == 200, answer
    made = [engines[e].state["encodings"]["made"] for e in ("e0", "e1")]
    assert sum(made) >= 6 and all(made), made


@pytest.mark.parametrize("how", ["500", "die"])
def test_an_encoder_that_fails_is_replaced(epd, how):
    front, engines = epd(encoders=2)
    engines["e0"].set(fail_encode=how)
    for n in range(4):
        status, answer = chat(front, part((84, 84 + 28 * n, lambda x, y: (x, y, 5))))
        assert status == 200, answer
    assert engines["e1"].state["encodings"]["made"] >= 4
    assert engines["whole"].state["encodings"]["here"] == 0


@pytest.mark.parametrize("how", ["500", "die"])
def test_without_an_encoder_who_computes_the_prompt_encodes(epd, vllm, serve, how):  # noqa: F811
    alone = serve(vllm())
    front, engines = epd()
    engines["e0"].set(fail_encode=how)
    status, answer = chat(front, part(RED), "What is this?")
    assert status == 200, answer
    assert tokens_of(answer) == tokens_of(chat(alone, part(RED), "What is this?")[1])
    assert engines["whole"].state["encodings"]["here"] == 1


def test_an_encoder_that_says_nothing(epd, vllm, serve):  # noqa: F811
    """As versions before 0.3x: embeddings are found by their name."""
    alone = serve(vllm())
    front, engines = epd(encoder={"ec_params": False})
    status, answer = chat(front, part(RED))
    assert status == 200, answer
    assert tokens_of(answer) == tokens_of(chat(alone, part(RED))[1])
    assert engines["whole"].state["encodings"]["elsewhere"] == 1
    assert "ec_transfer_params" not in json.dumps(generated(engines["whole"])[-1])


def test_a_client_that_leaves_ends_all_encode_legs(epd):
    front, engines = epd(encoder={"fail_encode": "stall"})
    pictures = [part((84, 56 + 28 * n, lambda x, y: (x, y, 5))) for n in range(3)]
    body = {"model": "tiny", "messages": [{"role": "user", "content": pictures}]}
    connection = http.client.HTTPConnection(front.host, front.port, timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    wait_until(lambda: engines["e0"].state["encodings"]["open"] == 3, "all are being encoded")
    connection.close()
    wait_until(lambda: engines["e0"].state["encodings"]["open"] == 0, "none is any more")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "trtllm", "events": False}, "can't be driven from outside"),
        ({"kind": "vllm"}, "renders no pictures"),
        ({"kind": "sglang"}, "asked by its own servers"),
    ],
    ids=["trtllm", "vllm", "sglang"],
)
def test_who_can_be_no_encoder(fakes, tmp_path, options, words):  # noqa: F811
    engine = fakes(**options)
    args = ["--engine", f"{engine.kind}={engine.url}", "--role", "encode"]
    args += ["--model", stator_process.model(), "--listen", f"unix:{tmp_path}/w.sock"]
    code, said = run("worker", *args)
    assert code != 0 and words in said, said


# A model whose template writes where pictures stand.

VLM_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = {vision.START: "<|vision_start|>", vision.IMAGE: "<|image_pad|>"}
NAMES[vision.END] = "<|vision_end|>"


@pytest.fixture
def vlm_folder(tmp_path):
    ids = {"image_token_id": vision.IMAGE, "vision_start_token_id": vision.START}
    ids["vision_end_token_id"] = vision.END
    folder = write_folder(tmp_path / "vlm", **ids)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    first = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    like = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [
        {**like, "id": i, "content": NAMES.get(i, f"<|{i}|>")} for i in range(first, 512)
    ]
    path.write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text(VLM_TEMPLATE)
    return folder


def serve_folder(fleet, folder, *engines, **options):
    server = SupervisedServer(
        None,
        folder=fleet.folder,
        engine=[f"{e.kind}={e.url}" for e in engines],
        model_dir=str(folder),
        served_model_name="tiny",
        **{**FAST, **options},
    )
    fleet.started.append(server)
    server.launch()
    wait_until(lambda: server.is_ready() or server.port, "it listens")
    server.wait_ready()
    server.wait_ready_workers(len(engines))
    return server


def test_a_template_that_marks_pictures(fleet, vllm, vlm_folder):
    engine = vllm()
    server = serve_folder(fleet, vlm_folder, engine)
    status, answer = chat(server, "See", part(RED), part(BLUE), "and tell.")
    assert status == 200, answer
    body = generated(engine)[-1]
    assert tokens_of(answer) == expected(body, [RED, BLUE])
    for place in body["features"]["mm_placeholders"]["image"]:
        around = body["token_ids"][place["offset"] - 1], body["token_ids"][
            place["offset"] + place["length"]
        ]
        assert around == (vision.START, vision.END)


def test_pictures_to_sglang(fleet, fakes, vlm_folder):  # noqa: F811
    engine = fakes(kind="sglang", quirks=["reads_pictures"])
    server = serve_folder(fleet, vlm_folder, engine)
    seen = []
    for pictures in ((RED,), (BLUE, RED), (RED, BLUE)):
        status, answer = chat(server, *map(part, pictures), "What is this?")
        assert status == 200, answer
        body = generated(engine)[-1]
        ids, urls = body["input_ids"], body["image_data"]
        assert [vision.item_of_url(u).content for u in urls] == [content(p) for p in pictures]
        assert ids.count(vision.IMAGE) == len(pictures), "it puts the rows in itself"
        size = len(ids) - len(pictures) + sum(map(rows, pictures))
        assert answer["usage"]["prompt_tokens"] == size
        full, left = [], list(pictures)
        for token in ids:
            if token == vision.IMAGE:
                picture = left.pop(0)
                full += [vision.row(content(picture), i) for i in range(rows(picture))]
            else:
                full.append(token)
        assert tokens_of(answer) == tokens_after(full, 6)
        seen.append(tokens_of(answer))
    assert seen[1] != seen[2]
    # Sizes are asked for once.
    counts = [b for b in generated(engine) if b["sampling_params"]["max_new_tokens"] == 1]
    assert len(counts) == 2


def test_pictures_to_sglang_with_prompt_and_output_apart(fleet, fakes, vlm_folder):  # noqa: F811
    engines = {
        role: fakes(kind="sglang", role=role, quirks=["reads_pictures"])
        for role in ("prefill", "decode")
    }
    whole = fakes(kind="sglang", quirks=["reads_pictures"])
    workers = [
        fleet.worker(
            role,
            engine=f"sglang={engine.url}",
            role=role,
            model_dir=str(vlm_folder),
            served_model_name="tiny",
            **FAST,
        ).launch()
        for role, engine in engines.items()
    ]
    for w in workers:
        w.wait_ready()
    front = fleet.frontend(router_disaggregation="always")
    front.wait_workers("prefill", "decode")
    alone = serve_folder(fleet, vlm_folder, whole)
    for pictures in ((RED,), (BLUE, RED)):
        status, answer = chat(front, *map(part, pictures), "What is this?")
        assert status == 200, answer
        assert tokens_of(answer) == tokens_of(chat(alone, *map(part, pictures), "What is this?")[1])
    legs = [b for b in generated(engines["decode"]) if "image_data" in b]
    assert len(legs) == 2 and all(b["bootstrap_room"] for b in legs)


def test_sglang_finds_its_encoders(fleet, fakes, vlm_folder):  # noqa: F811
    """Encoders register with Stator, which tells the engine; who is gone is taken back."""
    engine = fakes(kind="sglang", quirks=["reads_pictures"], language_only=True)
    encoder = fakes(kind="sglang", events=False)  # that it answers /health is enough
    worker_ = fleet.worker(
        "w",
        engine=f"sglang={engine.url}",
        model_dir=str(vlm_folder),
        served_model_name="tiny",
        worker_http="127.0.0.1:0",
        **FAST,
    ).launch()
    worker_.wait_ready()
    port = int(re.search(r"Health and metrics are shown.*?port=(\d+)", worker_.log()).group(1))

    def ask(method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, json.dumps(body) if body else None)
        answer = connection.getresponse()
        return answer.status, answer.read()

    front = fleet.frontend()
    front.wait_workers("w")
    status, answer = chat(front, part(RED))
    assert status >= 500, answer
    assert ask("POST", "/register_encoder_url", {"url": encoder.url})[0] == 200
    said = ask("GET", "/list_encoder_urls")
    assert json.loads(said[1]) == {"encoder_urls": [encoder.url]}
    wait_until(lambda: engine.state["encoder_urls"] == [encoder.url], "the engine is told")
    status, answer = chat(front, part(RED))
    assert status == 200, answer
    assert ask("DELETE", "/unregister_encoder_url", {"url": encoder.url})[0] == 200
    wait_until(lambda: engine.state["encoder_urls"] == [], "the engine is told")
