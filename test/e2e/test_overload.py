"""More requests than fit: a bounded queue, then 429 at once; slots come back when clients leave."""

import concurrent.futures
import contextlib

import openai
import pytest
import stator_process
from conftest import openai_client, read_metrics, wait_until
from raw_http import RawConnection, post

MESSAGES = [{"role": "user", "content": "Tell me a long story about a ship."}]
LONG = {
    "model": "story",
    "messages": MESSAGES,
    "max_tokens": 1900,
    "temperature": 0,
    "stream": True,
    "ignore_eos": True,
}
SHORT = {"model": "story", "messages": MESSAGES, "max_tokens": 1, "temperature": 0}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def small():
    server = stator_process.StatorServer(
        stator_process.model(),
        engine_threads=1,
        threads=1,
        context=4096,
        max_sequence=2048,
        max_running=1,
        max_waiting=1,
        served_model_name="story",
    )
    with server as s:
        yield s


def load(server):
    metrics = read_metrics(server)
    return metrics.sum("stator_engine_running"), metrics.sum("stator_engine_waiting")


@contextlib.contextmanager
def occupied(server):
    """One request runs and one waits, until the block ends."""
    with RawConnection(server) as running:
        running.send(post(CHAT, LONG))
        wait_until(lambda: load(server) == (1, 0), "one request runs")
        with RawConnection(server) as waiting:
            waiting.send(post(CHAT, LONG))
            wait_until(lambda: load(server) == (1, 1), "one request waits")
            yield
    wait_until(lambda: load(server) == (0, 0), "both slots are free again")


def test_full_queue_is_429_with_retry_after(small):
    with occupied(small), openai_client(small) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.post("/chat/completions", body=SHORT, cast_to=object)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert caught.value.body["type"] == "rate_limit_error"


def test_refusal_is_quick_and_costs_no_work(small):
    with occupied(small):
        before = read_metrics(small).sum("stator_engine_prefill_tokens_total")
        with RawConnection(small, timeout=5) as connection:
            for _ in range(20):
                connection.send(post(CHAT, SHORT))
                assert connection.read_response().status == 429
        # The request that waits may not have started meanwhile, and refused ones never do.
        assert read_metrics(small).sum("stator_engine_prefill_tokens_total") == before


def test_health_answers_under_full_load(small):
    with occupied(small):
        assert small.get_status("/health") == 200
        assert small.get_status("/live") == 200


def test_client_that_leaves_frees_the_slot(small):
    with RawConnection(small) as connection:
        connection.send(post(CHAT, LONG))
        connection.read_until(b"data: ")
        wait_until(lambda: load(small)[0] == 1, "the request runs")
    wait_until(lambda: load(small) == (0, 0), "the slot is free", seconds=10)
    assert generated(small, "cancelled") >= 1


def generated(server, finish):
    metrics = read_metrics(server)
    return sum(value for _, labels, value in metrics.samples if finish in labels.values())


def test_client_that_leaves_before_the_first_token_frees_the_slot(small):
    with RawConnection(small) as connection:
        connection.send(post(CHAT, {**LONG, "stream": False}))
        wait_until(lambda: load(small)[0] == 1, "the request runs")
    wait_until(lambda: load(small) == (0, 0), "the slot is free", seconds=10)


def test_client_that_leaves_the_queue(small):
    with RawConnection(small) as running:
        running.send(post(CHAT, LONG))
        wait_until(lambda: load(small) == (1, 0), "one request runs")
        with RawConnection(small) as waiting:
            waiting.send(post(CHAT, LONG))
            wait_until(lambda: load(small) == (1, 1), "one request waits")
        wait_until(lambda: load(small) == (1, 0), "the place in the queue is free")
    wait_until(lambda: load(small) == (0, 0), "everything is free")


def test_openai_client_closing_its_stream_frees_the_slot(small):
    with openai_client(small) as client:
        events = client.chat.completions.create(
            model="story",
            messages=MESSAGES,
            max_tokens=1900,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        next(iter(events))
        events.close()
        wait_until(lambda: load(small) == (0, 0), "the slot is free", seconds=10)


def test_queued_requests_are_served_in_the_end(small):
    """Two at a time, never more than fit: all get whole answers."""

    def one(_):
        with openai_client(small) as client:
            answer = client.post(
                "/chat/completions",
                body={**SHORT, "max_tokens": 4},
                cast_to=object,
            )
            return answer["choices"][0]["message"]["content"]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(one, range(6)))
    assert len(texts) == 6 and len(set(texts)) == 1
