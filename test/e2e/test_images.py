"""Images in chats: an encoder of random numbers, so that answers mean nothing, but must be the same
wherever a request's legs are computed, and differ where the picture does."""

import pytest
import stator_process
from conftest import openai_client, read_metrics
from media_http import MediaHttp, content, endless, redirect, silent
from media_models import (
    OPTIONS,
    assert_same_until_near_tie,
    make_projector,
    media_server,
    part,
    post_chat,
    tokens_of,
    wait_together,
    whole_and_apart,
)
from metrics_text import worker_metrics
from pictures import data_url, jpeg, png

STRIPES = png(120, 80, lambda x, y: (255 * (x // 10 % 2), 40, 200))
CIRCLE = png(120, 80, lambda x, y: (10, 255 if (x - 60) ** 2 + (y - 40) ** 2 < 900 else 0, 90))


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
    path = make_projector(tmp_path_factory.mktemp("projector"))
    return path or pytest.skip("there is no make_projector in STATOR_BUILD")


@pytest.fixture(scope="module")
def servers(projector):
    """The same model in one worker, and with a worker for each leg."""
    with whole_and_apart(projector) as both:
        yield both


@pytest.fixture(scope="module")
def clients(servers):
    made = [openai_client(s) for s in servers]
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


def test_legs_apart_answer_the_same(servers):
    for images in ((STRIPES,), (CIRCLE,), (CIRCLE, STRIPES), ()):
        parts = [part("image", data_url(i)) for i in images]
        answers = []
        for server in servers:
            status, answer = post_chat(
                server, *parts, "What is this?", logprobs=True, top_logprobs=2
            )
            assert status == 200, answer
            answers.append(tokens_of(answer))
        assert_same_until_near_tie(*answers)
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


def test_anthropics_form_is_the_same_picture(servers):
    def text(item):
        status, answer = post_chat(servers[0], item, "What is this?")
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"]

    expected = text(part("image", data_url(STRIPES)))
    data = data_url(STRIPES).partition(",")[2]
    source = {"type": "base64", "media_type": "image/png", "data": data}
    assert text({"type": "image", "source": source}) == expected
    assert text({"type": "image", "source": {"type": "url", "url": data_url(STRIPES)}}) == expected
    source = {"type": "base64", "media_type": "image/png", "data": data[: len(data) // 8 * 4]}
    status, answer = post_chat(servers[0], {"type": "image", "source": source})
    assert (status, answer["error"]["param"]) == (400, "messages[0].content[0].source")


def test_sound_is_refused_by_the_models_name(servers):
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    status, answer = post_chat(servers[0], "Listen:", sound)
    assert status == 400
    assert answer["error"]["param"] == "messages[0].content[1]"
    for word in ("input_audio", "the model vlm", "image_url", "video_url"):
        assert word in answer["error"]["message"]


# ---- by URL


@pytest.fixture(scope="module")
def fetching(projector):
    """A server that may fetch from this machine, and little."""
    extra = ("--media-allow-http", "--media-allow-private", "--media-host=127.0.0.1")
    limits = {"media_max_size": "64KiB", "media_fetch_timeout": "700ms"}
    with media_server(projector, extra, **limits) as server:
        wait_together(server, 1)
        yield server


@pytest.fixture
def site():
    with MediaHttp() as server:
        yield server


def test_pictures_by_url_are_what_their_bytes_are(fetching, site):
    def text(url):
        status, answer = post_chat(fetching, part("image", url), "What is this?")
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"]

    expected = text(data_url(STRIPES))
    for kind in ("image/png", "image/gif", "video/mp4", "application/octet-stream", ""):
        assert text(site.url(content(STRIPES, kind))) == expected
    # What comes behind the length that was said is not looked at.
    assert text(site.url(content(STRIPES, "image/png", more=b"GARBAGE" * 99))) == expected
    squares = jpeg(6, 4, lambda x, y: (40 * x, 60 * y, 9))
    assert text(site.url(content(squares, "image/png"))) == text(data_url(squares, "image/jpeg"))


def test_servers_of_pictures_that_misbehave(fetching, site):
    elsewhere = site.url(content(STRIPES), "/elsewhere")
    misbehaving = [
        (content(STRIPES, "text/html"), "neither image nor video"),
        (content(STRIPES, "application/json"), "neither image nor video"),
        (content(STRIPES, length=len(STRIPES) // 2), "broken or cut short"),
        (content(STRIPES, length=len(STRIPES) + 9), "too early"),
        (content(b"x" * 70_000), "70000 bytes; at most 65536"),
        (endless(b"x" * 1000), "more than 65536 bytes"),
        (content(b""), "leads to nothing"),
        (content(b"GIF89a" + bytes(99), "image/png"), "JPEG, PNG or WebP"),
        (silent, "not fetched within 0.7 s"),
        (redirect(elsewhere), "at most 0 redirects"),
    ]
    before = read_metrics(fetching)
    for route, words in misbehaving:
        status, answer = post_chat(fetching, part("image", site.url(route)))
        assert status == 400, answer
        assert answer["error"]["param"] == "messages[0].content[0].image_url", answer
        assert words in answer["error"]["message"], answer
    assert "/elsewhere" not in site.asked
    after = read_metrics(fetching)

    def more(**labels):
        return after.sum("stator_media_items_total", **labels) - (
            before.sum("stator_media_items_total", **labels)
        )

    assert more(kind="image") == len(misbehaving)
    assert more(outcome="ok") == 0
    assert more(outcome="too_large") == 2
    assert after.sum("stator_media_fetches_total", outcome="deadline_exceeded") >= 1
    assert after.sum("stator_media_fetches_total", outcome="permission_denied") >= 1
    assert after.sum("stator_media_source_bytes") == 0


def test_only_the_named_hosts(fetching, site):
    url = site.url(content(STRIPES))
    for host in ("127.0.0.2", "localhost", "[::1]", "0.0.0.0", "127.1", "0x7f000001"):
        status, answer = post_chat(fetching, part("image", url.replace("127.0.0.1", host)))
        assert status == 400, (host, answer)
        assert answer["error"]["param"] == "messages[0].content[0].image_url"
    assert not site.asked


# ---- what the encoder counts


def test_the_encoder_shows_what_it_does(projector, fleet):
    options = {"mmproj": projector, "served_model_name": "vlm", **OPTIONS}
    del options["threads"]
    encoder, decoder = (
        fleet.worker(
            name, stator_process.model(), role=role, worker_http="127.0.0.1:0", **options
        ).launch()
        for name, role in (("encoder", "encode"), ("decoder", "decode"))
    )
    for worker in (encoder, decoder):
        worker.wait_ready()
    frontend = fleet.frontend()
    frontend.wait_workers("encoder", "decoder")
    for image in (STRIPES, CIRCLE, STRIPES, STRIPES):
        status, answer = post_chat(frontend, part("image", data_url(image)))
        assert status == 200, answer
    metrics = worker_metrics(encoder)
    assert metrics.sum("stator_encoder_legs_total", outcome="ok") == 4
    assert metrics.sum("stator_encoder_cache_hits_total") == 2
    assert metrics.sum("stator_encoder_cache_misses_total") == 2
    assert metrics.sum("stator_encoder_cache_evictions_total") == 0
    assert metrics.sum("stator_encoder_cache_bytes") > 0
    assert metrics.sum("stator_encoder_seconds_count") == 2
    assert metrics.sum("stator_encoder_seconds_sum") > 0
    assert metrics.sum("stator_encoder_waiting_items") == 0
    assert "stator_encoder_legs_total" not in worker_metrics(decoder).names()
    seen = read_metrics(frontend)
    assert seen.sum("stator_media_items_total", kind="image", outcome="ok") == 4
    assert seen.sum("stator_media_cache_hits_total") == 2
    size = 3 * len(STRIPES) + len(CIRCLE)
    assert seen.sum("stator_media_bytes_total", **{"from": "request"}) == size
