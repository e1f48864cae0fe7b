"""Videos in chats: sampled into frames, encoded and answered, in one worker and with a worker for
each leg. The clips are written here, so neither packages nor programs are needed for them."""

import shutil
import subprocess
import time

import pytest
import stator_process
from conftest import read_metrics
from media_http import MediaHttp, content, redirect, silent
from media_models import (
    assert_same_until_near_tie,
    chat_body,
    make_projector,
    media_server,
    part,
    post_chat,
    tokens_of,
    wait_together,
    whole_and_apart,
)
from pictures import avi, clip, data_url, jpeg, png, sound_only

RED, GREEN, BLUE, GREY = (200, 20, 20), (20, 200, 20), (20, 20, 200), (90, 90, 90)
TEXT = "What happens here?"
FRAMES = 8  # that a video becomes
# What a test needs to fetch from this machine.
LOCAL = ("--media-allow-http", "--media-allow-private", "--media-host=127.0.0.1")


def moving(step):
    """A bright square that moves by so many squares from frame to frame."""
    return avi(
        [jpeg(12, 8, lambda x, y, i=i: RED if x == i * step % 12 else BLUE) for i in range(FRAMES)],
        columns=12,
        rows=8,
    )


def video(data, kind="video/x-msvideo"):
    return part("video", data_url(data, kind))


def ask(server, *parts, **fields):
    status, answer = post_chat(server, *parts, TEXT, logprobs=True, top_logprobs=2, **fields)
    assert status == 200, answer
    return answer


def refused(server, item, *words, status=400, param="messages[0].content[0].video_url"):
    """The answer to a chat with this item alone is an error that names the field and has these
    words."""
    got, answer = post_chat(server, item, TEXT)
    assert got == status, answer
    error = answer["error"]
    assert error["param"] == param, error
    for word in (param, *words):
        assert str(word) in error["message"], error
    return error


@pytest.fixture(scope="module")
def projector(tmp_path_factory):
    path = make_projector(tmp_path_factory.mktemp("projector"))
    return path or pytest.skip("there is no make_projector in STATOR_BUILD")


@pytest.fixture(scope="module")
def servers(projector):
    with whole_and_apart(projector, extra=LOCAL) as both:
        status, answer = post_chat(both[0], video(clip([RED])))
        if status == 400 and "no stator-video-decode" in answer["error"]["message"]:
            pytest.skip("built without FFmpeg's libraries")
        yield both


@pytest.fixture(scope="module")
def whole(servers):
    return servers[0]


@pytest.fixture(scope="module")
def small(projector, servers):
    """A server with limits that are quickly reached."""
    server = media_server(
        projector,
        LOCAL,
        media_max_size="64KiB",
        media_max_pixels=10_000,
        media_video_length="2s",
        media_video_frames=3,
        media_fetch_timeout="700ms",
    )
    with server:
        wait_together(server, 1)
        yield server


@pytest.fixture
def site():
    with MediaHttp() as server:
        yield server


def test_legs_apart_answer_the_same(servers):
    before = read_metrics(servers[1]).sum("stator_pool_split_requests_total")
    picture = part("image", data_url(png(60, 40, lambda x, y: (4 * x, 6 * y, 9))))
    chats = [
        (video(moving(1)),),
        (video(clip([RED, GREEN, BLUE, GREY])),),
        (picture, "and", video(moving(2))),
        (video(clip([RED, BLUE])), video(clip([BLUE, RED])), picture),
    ]
    for parts in chats:
        one, apart = (ask(s, *parts) for s in servers)
        assert one["usage"]["prompt_tokens"] == apart["usage"]["prompt_tokens"]
        assert_same_until_near_tie(tokens_of(one), tokens_of(apart))
    after = read_metrics(servers[1]).sum("stator_pool_split_requests_total")
    assert after - before == len(chats)


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


def test_the_answer_depends_on_the_clip(whole):
    first, second = (text_of(ask(whole, video(moving(step)))) for step in (1, 5))
    assert first != second
    assert text_of(ask(whole, video(moving(1)))) == first


def test_the_order_of_frames_counts(whole):
    colours = [RED, GREEN, BLUE, GREY, RED, RED]
    forth, back = (ask(whole, video(clip(c))) for c in (colours, colours[::-1]))
    assert forth["usage"]["prompt_tokens"] == back["usage"]["prompt_tokens"]
    assert text_of(forth) != text_of(back)


def test_frames_count_as_prompt(whole):
    def tokens(frames):
        colours = [(i * 16, 255 - i * 16, 40) for i in range(frames)]
        return ask(whole, video(clip(colours)))["usage"]["prompt_tokens"]

    one, two, four, eight, sixteen = (tokens(n) for n in (1, 2, 4, 8, 16))
    frame = two - one
    assert frame >= 16
    assert (four - one, eight - one) == (3 * frame, 7 * frame)
    assert sixteen == eight, "at most so many frames are taken"


def test_streamed_and_several_choices(whole):
    answer = ask(whole, video(moving(3)), n=2)
    texts = {c["message"]["content"] for c in answer["choices"]}
    assert len(answer["choices"]) == 2 and len(texts) == 1
    body = chat_body(video(moving(3)), TEXT, stream=True)
    status, _, events = whole.request("POST", "/v1/chat/completions", body)
    assert status == 200 and events.rstrip().endswith(b"data: [DONE]")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: clip([RED] * 12), ("longer than 2 s",)),  # of 3 s
        (lambda: clip([RED], columns=16, rows=16), ("128 x 128", "at most 10000")),
        (lambda: clip([RED] * 6)[:-400], ("broken or cut short",)),
        (lambda: clip([RED] * 6)[:600], ("broken or cut short",)),
        (sound_only, ("sound", "no pictures")),
        (lambda: clip([RED], codec=b"ULRG"), ("coded in a way", "H.264", "Motion JPEG")),
        (lambda: png(4, 4, lambda x, y: RED), ("MP4, WebM, Matroska or AVI",)),
        (lambda: b"#EXTM3U\nfile:///etc/passwd\n" * 9, ("MP4, WebM, Matroska or AVI",)),
        (lambda: bytes(66_000), ("66000 bytes", "at most 65536")),
    ],
    ids=["long", "pixels", "end", "head", "sound", "codec", "png", "playlist", "size"],
)
def test_limits_are_named(small, made, words):
    refused(small, video(made()), *words)


def test_many_frames_are_sampled_not_refused(small):
    three = ask(small, video(clip([RED, GREEN, BLUE])))
    eight = ask(small, video(clip([RED, GREEN, BLUE, GREY] * 2)))
    assert three["usage"]["prompt_tokens"] == eight["usage"]["prompt_tokens"]


def test_a_picture_is_no_video_and_a_video_no_picture(whole):
    refused(
        whole,
        part("image", data_url(clip([RED]), "image/png")),
        "JPEG, PNG or WebP",
        param="messages[0].content[0].image_url",
    )


def test_by_url(whole, site):
    data = moving(1)
    expected = text_of(ask(whole, video(data)))
    url = site.url(content(data, "video/x-msvideo"))
    assert text_of(ask(whole, part("video", url))) == expected
    metrics = read_metrics(whole)
    assert metrics.sum("stator_media_fetches_total", outcome="ok") >= 1
    assert metrics.sum("stator_media_bytes_total", **{"from": "url"}) >= len(data)


def test_servers_that_do_not_deliver(small, site):
    data = clip([RED, GREEN])
    begin = time.monotonic()
    refused(small, part("video", site.url(silent)), "not fetched within 0.7 s")
    assert time.monotonic() - begin < 10
    elsewhere = site.url(content(data), "/elsewhere")
    refused(small, part("video", site.url(redirect(elsewhere))), "302", "redirects")
    assert "/elsewhere" not in site.asked
    refused(small, part("video", site.url(content(data, length=len(data) + 9))), "too early")
    refused(small, part("video", site.url(content(data, "text/html"))), "Content-Type")
    refused(small, part("video", site.url(content(bytes(70_000)))), "70000 bytes", "65536")
    other = elsewhere.replace("127.0.0.1", "127.0.0.2")
    refused(small, part("video", other), "127.0.0.2", "not fetched")


def test_without_the_decoder(projector, site):
    options = {"media_video_helper": "/nonexistent/stator-video-decode"}
    with media_server(projector, LOCAL, **options) as server:
        wait_together(server, 1)
        url = site.url(content(clip([RED])))
        for item in (video(clip([RED])), part("video", url)):
            refused(server, item, "no stator-video-decode", "FFmpeg", "--media-video-helper")
        assert not site.asked, "nothing is fetched that can't be read"
        picture = part("image", data_url(png(8, 8, lambda x, y: RED)))
        assert text_of(ask(server, picture))


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("mp4", ["-c:v", "mpeg4"]),
        ("webm", ["-c:v", "libvpx"]),
        ("mkv", ["-c:v", "libx264"]),
        ("m4a", None),
    ],
)
def test_what_ffmpeg_makes(whole, tmp_path, ending, options):
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to make a clip with")
    path = tmp_path / f"clip.{ending}"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2", *(options or [])]
    if options is None:
        source = ["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac"]
    made = subprocess.run(
        ["ffmpeg", "-v", "error", *source, path], stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    if made.returncode != 0:
        pytest.skip("an ffmpeg without that encoder")
    data = path.read_bytes()
    if options is None:
        refused(whole, video(data), "no pictures")
        return
    assert text_of(ask(whole, video(data)))
    refused(whole, video(data[: len(data) * 9 // 10]), "cut short")


def test_an_encoder_that_is_busy_for_long_is_not_stuck(servers, fleet, tmp_path):
    slow = make_projector(tmp_path, layers=40)
    options = {"mmproj": slow, "served_model_name": "vlm", "engine_threads": 1}
    options |= {"context": 2048, "max_sequence": 1024}
    workers = [
        fleet.worker(role, stator_process.model(), role=role, **options).launch()
        for role in ("encode", "decode")
    ]
    for worker in workers:
        worker.wait_ready()
    looks = {"canary_after": "300ms", "canary_within": "1s", "media_video_frames": 64}
    frontend = fleet.frontend(**looks)
    frontend.wait_workers("encode", "decode")
    many = clip([(i * 4, 255 - i * 4, 40) for i in range(64)])
    # More than fits the context; that is found when all of it is encoded.
    status, answer = post_chat(frontend, video(many), TEXT, timeout=300)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded"), answer
    assert read_metrics(frontend).sum("stator_fleet_canaries_lost_total") == 0
    assert frontend.states()["encode"] == "ready"
