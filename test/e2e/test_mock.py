"""The mock engine as a process: its answers are a function of prompt and seed, so that every one
is known to the token, whatever dies meanwhile; and each way in which it goes wrong on purpose."""

import concurrent.futures
import json
import pathlib
import re
import signal
import time

import pytest
import stator_process
from answers import stream_completion
from conftest import openai_client, read_metrics, wait_until
from test_event_plane import Tail
from test_images import data_url, png

QUICK = {"link_silent_after": "300ms", "link_lost_after": "1s", "wait_for_worker": "300ms"}
TEN_MS = {"mock_preset": "constant-10ms", "mock_mean_output": 0}


def prompt_of(number):
    return f"{number}: " + "the quick brown fox jumps over the lazy dog, " * 3


def ask(server, number=0, tokens=20, **fields):
    fields = {"model": "mock", "seed": number, **fields}
    return stream_completion(server, prompt_of(number), tokens, **fields)


def all_of(server, count, tokens, **fields):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda i: ask(server, i, tokens, **fields), range(count)))


@pytest.fixture(scope="module")
def mock():
    options = {**TEN_MS, "speedup": 20, "threads": 1}
    with stator_process.StatorServer(engine="mock", **options) as s:
        yield s


def undisturbed(mock, count, tokens):
    """What the same requests give from an engine of their own."""
    answers = all_of(mock, count, tokens)
    for answer in answers:
        assert answer.complete, str(answer)
        assert len(answer.tokens) == tokens
    return [a.tokens for a in answers]


def assert_tokens(answers, expected):
    for answer, tokens in zip(answers, expected, strict=True):
        assert answer.complete, str(answer)
        assert answer.tokens == tokens


def test_chat_and_what_the_prefix_cache_gives(mock):
    with openai_client(mock) as client:

        def chat(text):
            return client.chat.completions.create(
                model="mock",
                messages=[{"role": "user", "content": text}],
                max_tokens=30,
                seed=7,
            )

        text = "A prompt of its own, which nobody has sent before. " * 4
        first, second = chat(text), chat(text)
        other = chat("Something else.")
    content = first.choices[0].message.content
    assert re.fullmatch(r"[ -~]{30}", content), content
    assert second.choices[0].message.content == content
    assert other.choices[0].message.content != content
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert second.usage.prompt_tokens - 16 <= cached < second.usage.prompt_tokens
    assert read_metrics(mock).sum("stator_mock_steps_total") > 60


def test_seeds_and_salts_make_a_difference(mock):
    same = {ask(mock, 3).text for _ in range(3)}
    assert len(same) == 1
    assert ask(mock, 3, seed=4).text not in same


def test_mean_output_ends_answers(start_server):
    server = start_server(
        engine="mock", mock_preset="constant-10ms", mock_mean_output=12, speedup=50, threads=1
    )
    answers = all_of(server, 20, 4000, ignore_eos=False)
    assert {a.finish for a in answers} == {"stop"}
    assert 4 < sum(len(a.tokens) for a in answers) / len(answers) < 40


def test_words_of_a_models_vocabulary(start_server):
    server = start_server(
        stator_process.model(),
        engine="mock",
        served_model_name="mock",
        speedup=50,
        threads=1,
        **TEN_MS,
    )
    answer = ask(server, 1, 40)
    assert answer.complete, str(answer)
    assert len(answer.tokens) == 40
    assert re.fullmatch(r"[A-Za-z ]+", answer.text), answer.text


def test_nobody_takes_it_for_the_model_whose_words_it_has(fleet):
    fleet.worker(
        "w", stator_process.model(), engine="mock", served_model_name="mock", speedup=20, **TEN_MS
    ).start()
    frontend = fleet.frontend().wait_workers("w")
    answer = ask(frontend, 2, 20)
    assert answer.complete, str(answer)
    assert re.fullmatch(r"[A-Za-z ]+", answer.text), answer.text
    (pool,) = frontend.health()["fleet"]["pools"]
    assert pool["weights"] == "mock"


def test_many_workers_of_one_process(fleet, mock):
    expected = undisturbed(mock, 32, 60)
    names = [f"m-{i}" for i in range(8)]
    worker = fleet.mock_worker("m", count=8, speedup=5)
    frontend = fleet.frontend().wait_workers(*names)
    assert_tokens(all_of(frontend, 32, 60), expected)
    threads = list(pathlib.Path(f"/proc/{worker.pid}/task").iterdir())
    assert len(threads) < 12, f"{len(threads)} threads for 8 workers"
    # A request in work is let end, by all of them.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, frontend, 0, 300)
        wait_until(
            lambda: any(sum(frontend.load(n) or (0, 0)) for n in names), "the request is at work"
        )
        worker.terminate()
        answer = running.result()
    assert answer.complete, str(answer)
    assert len(answer.tokens) == 300
    assert worker.wait() == 0


def test_several_ranks_behind_one_worker(fleet, mock):
    expected = undisturbed(mock, 12, 40)
    fleet.mock_worker("w", mock_ranks=3, speedup=5)
    frontend = fleet.frontend().wait_workers("w")
    assert len(frontend.workers()["w"]["ranks"]) == 3
    assert_tokens(all_of(frontend, 12, 40), expected)


def test_kill_gives_the_text_of_an_undisturbed_run(fleet, mock):
    expected = undisturbed(mock, 12, 300)
    frontend = fleet.frontend(**QUICK)
    first = fleet.mock_worker("w1")
    fleet.mock_worker("w2")
    frontend.wait_workers("w1", "w2")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(all_of, frontend, 12, 300)
        wait_until(lambda: sum(frontend.load("w1")) > 3, "w1 is at work")
        first.signal(signal.SIGKILL)
        answers = running.result()
    assert_tokens(answers, expected)
    assert read_metrics(frontend).sum("stator_pool_migrations_total") > 0
    for answer in answers:
        assert answer.usage["completion_tokens"] == 300


def test_crash_of_a_process_is_a_kill(fleet, mock):
    expected = undisturbed(mock, 1, 700)
    frontend = fleet.frontend(**QUICK)
    worker = fleet.mock_worker("w1", mock_faults="crash@4s")
    frontend.wait_workers("w1")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(all_of, frontend, 1, 700)
        wait_until(lambda: sum(frontend.load("w1") or (0, 0)) > 0, "w1 is at work")
        fleet.mock_worker("w2")
        assert_tokens(running.result(), expected)
    assert worker.wait() == -signal.SIGKILL
    assert read_metrics(frontend).sum("stator_pool_migrations_total") == 1


def test_crash_of_one_of_many_takes_only_that_one(fleet, mock):
    expected = undisturbed(mock, 12, 500)
    frontend = fleet.frontend(**QUICK)
    worker = fleet.mock_worker("m", count=3, mock_faults="worker=1:crash@3s")
    frontend.wait_workers("m-0", "m-1", "m-2")
    assert_tokens(all_of(frontend, 12, 500), expected)
    wait_until(lambda: set(frontend.states()) == {"m-0", "m-2"}, "m-1 is gone")
    assert "The worker vanishes" in worker.log()
    assert read_metrics(frontend).sum("stator_pool_migrations_total") > 0
    worker.terminate()
    assert worker.wait() == 0


def test_hang_holds_answers_up(start_server, mock):
    expected = undisturbed(mock, 1, 20)
    server = start_server(engine="mock", threads=1, mock_faults="hang@0s+3s", **TEN_MS)
    answer = ask(server, 0, 20)
    assert answer.tokens == expected[0]
    assert answer.seconds > 1.0
    assert ask(server, 0, 20).seconds < 1.0


def test_slow_steps(start_server, mock):
    expected = undisturbed(mock, 1, 10)
    server = start_server(engine="mock", threads=1, mock_faults="slow@0s+1h:x20", **TEN_MS)
    answer = ask(server, 0, 10)
    assert answer.tokens == expected[0]
    assert answer.seconds >= 2.0


def test_wrong_tokens(start_server, mock):
    expected = undisturbed(mock, 1, 50)
    server = start_server(
        engine="mock", threads=1, speedup=10, mock_faults="wrong-tokens@0s+1h", **TEN_MS
    )
    answer = ask(server, 0, 50)
    assert answer.complete
    assert len(answer.tokens) == 50
    assert not any(a == b for a, b in zip(answer.tokens, expected[0], strict=True))


def tail_of(fleet):
    listener = Tail(fleet.folder, topic=["kv"])
    fleet.started.append(listener)
    return listener.start()


def events_of(listener):
    """(number, event) of all KV events that were heard, in order."""
    out = []
    for message in listener.messages("kv"):
        if message["heartbeat"]:
            continue
        number = 0
        for event in message["payload"]["events"]:
            number = event.get("n", number + 1)
            out.append((number, event))
    return out


def test_events_of_blocks_that_come_and_go(fleet):
    fleet.mock_worker("w", speedup=20, mock_blocks=64, mock_host_blocks=64, mock_disk_blocks=64)
    frontend = fleet.frontend().wait_workers("w")
    listener = tail_of(fleet)
    asked = 0

    def heard():
        nonlocal asked
        asked += 1
        assert ask(frontend, asked, 30).complete
        seen = {(e["op"], e.get("tier", "device")) for _, e in events_of(listener)}
        tiers = ("device", "host", "disk")
        return seen >= {(op, tier) for op in ("stored", "removed") for tier in tiers}

    wait_until(heard, "blocks are stored in each memory and removed from it", seconds=40)
    numbers = [n for n, _ in events_of(listener)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_lost_events_leave_gaps(fleet):
    fleet.mock_worker("w", speedup=20, mock_faults="drop-events@0s+1h:0.5")
    frontend = fleet.frontend().wait_workers("w")
    listener = tail_of(fleet)
    asked = 0

    def heard():
        nonlocal asked
        asked += 1
        assert ask(frontend, asked, 200).complete
        return len(events_of(listener)) > 30

    wait_until(heard, "events are heard", seconds=40)
    numbers = [n for n, _ in events_of(listener)]
    assert numbers == sorted(set(numbers))
    span = numbers[-1] - numbers[0] + 1
    assert span / 4 < len(numbers) < span * 3 / 4


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"mock_preset": "gpt-9"}, 'there is no preset "gpt-9"; there are'),
        ({"mock_faults": "crash@soon"}, 'no time that can be read: "soon"'),
        ({"mock_step_time": "/nowhere.yaml"}, "The step time file"),
        ({"count": 2, "listen": "unix:/tmp/x.sock"}, "write %i where their number"),
        ({"count": 2, "engine": "echo"}, "--count is for mock engines"),
    ],
)
def test_what_can_not_be_is_refused(fleet, flags, says):
    worker = fleet.worker("w", **{"engine": "mock", **flags})
    with pytest.raises(stator_process.StartError) as caught:
        worker.start()
    assert says in str(caught.value)


def test_what_a_picture_becomes(tmp_path):
    """A token for so many pixels, but no more than so many."""
    server = stator_process.StatorServer(
        engine="mock",
        topology="epd",
        mock_image_pixels=100,
        mock_image_tokens=50,
        mock_image_ms=300,
        mock_kv_bytes=64,
        folder=tmp_path,
    )
    with server.start():

        def ask(width, height):
            url = data_url(png(width, height, lambda x, y: (x % 256, y % 256, 7)))
            picture = {"type": "image_url", "image_url": {"url": url}}
            body = {
                "model": "mock",
                "messages": [{"role": "user", "content": [picture]}],
                "max_tokens": 2,
            }
            start = time.monotonic()
            status, _, answer = server.request("POST", "/v1/chat/completions", body)
            assert status == 200, answer
            return json.loads(answer)["usage"]["prompt_tokens"], time.monotonic() - start

        small, seconds = ask(100, 20)
        assert seconds >= 0.3
        assert ask(100, 40)[0] - small == 20
        assert ask(200, 100)[0] - small == 30
