"""A frontend and workers as processes of their own, with the echo engine: every answer is known to
the token, whatever dies meanwhile."""

import concurrent.futures
import random
import signal
import string
import threading
import time

import pytest
from answers import echo_of, exchange, stream_completion
from conftest import openai_client, read_metrics, wait_until
from raw_http import RawConnection, post
from stator_process import resident_mib

# A lost worker is noticed soon; the frontend waits shortly where none is left.
QUICK = {"link_silent_after": "300ms", "link_lost_after": "1s", "wait_for_worker": "300ms"}


def prompt_of(number, length=61):
    """Letters without a period, so that a lost, doubled or swapped token changes the text."""
    return "".join(random.Random(number).choices(string.ascii_letters, k=length))


def assert_exact(answer, prompt, count):
    assert answer.complete, str(answer)
    assert answer.text == echo_of(prompt, count)
    assert answer.tokens == [ord(c) for c in echo_of(prompt, count)]
    assert answer.finish == "length"
    assert answer.usage["prompt_tokens"] == len(prompt)
    assert answer.usage["completion_tokens"] == count


class Streams:
    """Concurrent streamed completions, each with a prompt of its own."""

    def __init__(self, frontend, count, tokens, timeout=60, **fields):
        self.tokens = tokens
        self.prompts = [prompt_of(i) for i in range(count)]
        self.progress = [0] * count
        self._pool = concurrent.futures.ThreadPoolExecutor(count)
        self._futures = [
            self._pool.submit(
                stream_completion,
                frontend,
                prompt,
                tokens,
                on_piece=lambda answer, i=i: self._note(i, answer),
                timeout=timeout,
                **fields,
            )
            for i, prompt in enumerate(self.prompts)
        ]

    def _note(self, i, answer):
        self.progress[i] = len(answer.tokens)

    def wait_for_tokens(self, least):
        wait_until(
            lambda: min(self.progress) >= least or any(f.done() for f in self._futures),
            f"each stream has {least} tokens",
        )
        for future in self._futures:
            assert not future.done(), f"a stream is over already: {future.result()}"
        assert max(self.progress) < self.tokens, "a stream is over before anything could happen"

    def answers(self):
        answers = [f.result() for f in self._futures]
        self._pool.shutdown()
        return answers

    def assert_all_exact(self):
        for prompt, answer in zip(self.prompts, self.answers(), strict=True):
            assert_exact(answer, prompt, self.tokens)


def wait_idle(frontend, *names):
    wait_until(
        lambda: all(frontend.load(name) == (0, 0) for name in names),
        f"{names} have nothing to do: {frontend.workers()}",
    )


def test_kill_under_many_streams(fleet):
    frontend = fleet.frontend(**QUICK)
    first, _ = fleet.echo_workers("w1", "w2", echo_step_us=2000)
    frontend.wait_workers("w1", "w2")
    streams = Streams(frontend, 20, 600)
    streams.wait_for_tokens(20)
    lost = sum(frontend.load("w1"))
    assert lost > 0
    first.kill()
    streams.assert_all_exact()
    assert read_metrics(frontend).sum("stator_pool_migrations_total") == lost
    wait_idle(frontend, "w2")


def test_stopped_worker_loses_its_streams_and_comes_back(fleet):
    frontend = fleet.frontend(**QUICK)
    first, _ = fleet.echo_workers("w1", "w2", echo_step_us=2000)
    frontend.wait_workers("w1", "w2")
    incarnation = frontend.workers()["w1"]["incarnation"]
    streams = Streams(frontend, 8, 800)
    streams.wait_for_tokens(20)
    assert sum(frontend.load("w1")) > 0
    first.signal(signal.SIGSTOP)
    wait_until(lambda: frontend.states().get("w1") in ("suspect", None), "w1 is suspect")
    streams.assert_all_exact()
    assert read_metrics(frontend).sum("stator_pool_migrations_total") > 0
    first.signal(signal.SIGCONT)
    frontend.wait_workers("w1", "w2")
    assert frontend.workers()["w1"]["incarnation"] == incarnation
    wait_idle(frontend, "w1", "w2")


def test_short_pause_moves_nothing(fleet):
    frontend = fleet.frontend(link_silent_after="200ms", link_lost_after="20s")
    first, _ = fleet.echo_workers("w1", "w2", echo_step_us=2000)
    frontend.wait_workers("w1", "w2")
    streams = Streams(frontend, 4, 300)
    streams.wait_for_tokens(10)
    first.signal(signal.SIGSTOP)
    wait_until(lambda: frontend.states().get("w1") == "suspect", "w1 is suspect")
    # Meanwhile new requests go elsewhere.
    for i in range(4):
        assert_exact(stream_completion(frontend, prompt_of(i), 10), prompt_of(i), 10)
    first.signal(signal.SIGCONT)
    streams.assert_all_exact()
    assert read_metrics(frontend).sum("stator_pool_migrations_total") == 0
    wait_until(lambda: frontend.states() == {"w1": "ready", "w2": "ready"}, "both are ready again")


def test_cancel_reaches_the_engine(fleet):
    frontend = fleet.frontend()
    fleet.echo_workers("w1", echo_step_us=5000)
    frontend.wait_workers("w1")
    answers = []
    started = threading.Event()

    def leave(answer):
        if len(answer.tokens) >= 5:
            started.set()
            return False
        return True

    threads = [
        threading.Thread(
            target=lambda i=i: answers.append(
                stream_completion(frontend, prompt_of(i), 8000, on_piece=leave)
            )
        )
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    assert started.wait(20)
    for thread in threads:
        thread.join()
    assert [a.broken for a in answers] == ["the client left"] * 4
    # 8,000 steps of 5 ms would be 40 s.
    begin = time.monotonic()
    wait_idle(frontend, "w1")
    assert time.monotonic() - begin < 5


def test_clients_that_stop_reading_cost_bounded_memory(fleet):
    frontend = fleet.frontend()
    (worker,) = fleet.echo_workers("w1", max_sequence=2_000_000, max_running=32, echo_step_us=0)
    frontend.wait_workers("w1")
    assert_exact(stream_completion(frontend, "hello", 12), "hello", 12)
    before = resident_mib(frontend.pid), resident_mib(worker.pid)
    body = {"model": "echo", "prompt": "abc", "max_tokens": 1_500_000, "stream": True}
    idle = [RawConnection(frontend) for _ in range(16)]
    try:
        for connection in idle:
            connection.send(post("/v1/completions", body))
        for connection in idle:
            assert connection.read_head()[0] == 200
        # They are ended, not kept: 16 answers would be 800 MB.
        wait_idle(frontend, "w1")
        assert_exact(stream_completion(frontend, "hello", 12), "hello", 12)
        assert resident_mib(frontend.pid) < before[0] + 128
        assert resident_mib(worker.pid) < before[1] + 256
    finally:
        for connection in idle:
            connection.socket.close()


def test_deadline_ends_the_work(fleet):
    frontend = fleet.frontend(request_timeout="500ms")
    fleet.echo_workers("w1", echo_step_us=5000)
    frontend.wait_workers("w1")
    prompt = prompt_of(1)
    answer = stream_completion(frontend, prompt, 8000)
    assert not answer.broken, str(answer)
    assert answer.done or answer.error
    assert answer.text == echo_of(prompt, len(answer.tokens))
    assert 10 < len(answer.tokens) < 200
    assert 0.4 < answer.seconds < 5
    wait_idle(frontend, "w1")


def test_no_worker_is_503_with_retry_after(fleet):
    frontend = fleet.frontend(**QUICK)
    (worker,) = fleet.echo_workers("w1")
    frontend.wait_workers("w1")
    worker.kill()
    wait_until(lambda: not frontend.states(), "the worker is gone")
    for stream in (True, False):
        answer = exchange(
            frontend,
            "/v1/completions",
            {"model": "echo", "prompt": "a", "max_tokens": 1, "stream": stream},
        )
        assert answer.status == 503, str(answer)
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.error["type"] == "server_error"
        assert answer.seconds < 3
    assert frontend.request("GET", "/health")[0] == 503


def test_only_worker_lost_in_a_stream_is_an_error_and_no_clean_end(fleet):
    frontend = fleet.frontend(**QUICK)
    (worker,) = fleet.echo_workers("w1", echo_step_us=2000)
    frontend.wait_workers("w1")
    prompt = prompt_of(3)
    killed = []

    def kill_once(answer):
        if len(answer.tokens) >= 20 and not killed:
            killed.append(True)
            worker.kill()

    answer = stream_completion(frontend, prompt, 2000, on_piece=kill_once)
    assert answer.error, str(answer)
    assert answer.finish is None
    assert answer.text == echo_of(prompt, len(answer.tokens))
    assert answer.seconds < 10


def test_request_waits_for_a_worker_that_restarts(fleet):
    frontend = fleet.frontend(wait_for_worker="20s")
    (worker,) = fleet.echo_workers("w1", echo_step_us=2000)
    frontend.wait_workers("w1")
    streams = Streams(frontend, 5, 500)
    streams.wait_for_tokens(20)
    worker.kill()
    late = concurrent.futures.ThreadPoolExecutor(1).submit(
        stream_completion, frontend, prompt_of(99), 10
    )
    worker.start()
    streams.assert_all_exact()
    assert_exact(late.result(), prompt_of(99), 10)


def test_worker_that_refuses_costs_nothing_where_another_has_room(fleet):
    """Two frontends that don't hear of each other's requests: where both send two of their three to
    the same worker, it has one too many and must refuse it."""
    alone = {"router_replica_sync": "false", "router_queue": 0}
    frontends = [fleet.frontend(**alone), fleet.frontend(**alone)]
    workers = fleet.echo_workers("w1", "w2", max_running=1, max_waiting=2)
    for frontend in frontends:
        frontend.wait_workers("w1", "w2")
    for _ in range(20):  # which worker gets the two may be by chance
        for worker in workers:
            worker.signal(signal.SIGSTOP)
        streams = [Streams(frontend, 3, 20) for frontend in frontends]
        for frontend in frontends:
            wait_until(
                lambda f=frontend: sum(sum(f.load(name)) for name in ("w1", "w2")) == 3,
                "all three are on their way",
            )
        for worker in workers:
            worker.signal(signal.SIGCONT)
        for stream in streams:
            stream.assert_all_exact()
        for frontend in frontends:
            wait_idle(frontend, "w1", "w2")
        if sum(read_metrics(f).sum("stator_pool_refusals_total") for f in frontends):
            return
    pytest.fail("no worker ever refused, so nothing was tested")


def test_all_full_is_429(fleet):
    frontend = fleet.frontend(router_queue=0)
    fleet.echo_workers("w1", "w2", max_running=1, max_waiting=1, echo_step_us=2000)
    frontend.wait_workers("w1", "w2")
    streams = Streams(frontend, 4, 400)
    wait_until(
        lambda: [frontend.load(n) for n in ("w1", "w2")] == [(1, 1), (1, 1)], "both are full"
    )
    answer = stream_completion(frontend, "abc", 1)
    assert answer.status == 429, str(answer)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.error["type"] == "rate_limit_error"
    streams.assert_all_exact()
    assert_exact(stream_completion(frontend, "abc", 1), "abc", 1)


def test_restarted_worker_is_a_new_instance_at_once(fleet):
    frontend = fleet.frontend(**QUICK)
    (worker,) = fleet.echo_workers("w1")
    frontend.wait_workers("w1")
    seen = set()
    for _ in range(3):
        before = frontend.workers()["w1"]
        seen.add(before["incarnation"])
        worker.kill()
        worker.start()
        after = wait_until(
            lambda b=before: (w := frontend.workers().get("w1"))
            and w["incarnation"] != b["incarnation"]
            and w["state"] == "ready"
            and w,
            "the new one is ready",
        )
        assert after["address"] == before["address"]
        assert after["incarnation"] not in seen
        assert_exact(stream_completion(frontend, "hello", 12), "hello", 12)
    gone = read_metrics(frontend).sum("stator_fleet_transitions_total", to="gone")
    assert gone >= 3
    assert frontend.log().count("to=gone") >= 3


def test_sigterm_drains_and_exits_0(fleet):
    frontend = fleet.frontend(**QUICK)
    first, _ = fleet.echo_workers("w1", "w2", echo_step_us=2000)
    frontend.wait_workers("w1", "w2")
    streams = Streams(frontend, 8, 500)
    streams.wait_for_tokens(10)
    assert sum(frontend.load("w1")) > 0
    first.terminate()
    wait_until(lambda: frontend.states().get("w1") == "draining", "w1 drains")
    before = sum(frontend.load("w1"))
    assert_exact(stream_completion(frontend, "hello", 12), "hello", 12)
    assert sum(frontend.load("w1")) <= before
    streams.assert_all_exact()
    assert first.wait() == 0
    assert read_metrics(frontend).sum("stator_pool_migrations_total") == 0


def test_restart_of_all_workers_by_hand_fails_no_request(fleet):
    frontend = fleet.frontend(**QUICK)
    workers = fleet.echo_workers("w1", "w2", "w3")
    frontend.wait_workers("w1", "w2", "w3")
    stop = threading.Event()
    answers = []

    def load(number):
        i = number
        while not stop.is_set():
            answers.append((i, stream_completion(frontend, prompt_of(i), 100)))
            i += 100

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(load, i) for i in range(6)]
        try:
            for worker in 2 * workers:
                incarnation = frontend.workers()[worker.name]["incarnation"]
                worker.terminate()
                assert worker.wait() == 0
                worker.start()
                wait_until(
                    lambda w=worker, old=incarnation: (now := frontend.workers().get(w.name))
                    and now["incarnation"] != old
                    and now["state"] == "ready",
                    f"{worker.name} is back",
                )
        finally:
            stop.set()
        for client in clients:
            client.result()
    assert len(answers) > 20
    for i, answer in answers:
        assert_exact(answer, prompt_of(i), 100)


def served_pools(frontend):
    return {m["pool"]: m for m in frontend.health()["models"]}


def test_different_cards_are_two_pools_and_never_mixed(fleet):
    frontend = fleet.frontend(new_pool_share=25, wait_for_worker="300ms")
    fleet.echo_workers("old", max_sequence=4096, echo_step_us=200)
    frontend.wait_workers("old")
    (old_pool,) = served_pools(frontend)
    # The newcomer fails on purpose, so that it shows who answered.
    (new,) = fleet.echo_workers("new", max_sequence=8192, echo_fail_after=7, echo_step_us=200)
    frontend.wait_workers("old", "new")
    pools = served_pools(frontend)
    assert set(pools) == {frontend.workers()[name]["pool"] for name in ("old", "new")}
    assert {p["context_length"] for p in pools.values()} == {4096, 8192}
    assert [m.id for m in openai_client(frontend).models.list().data] == ["echo"]

    answers = [stream_completion(frontend, prompt_of(i), 20, model="echo") for i in range(200)]
    newcomers = 0
    for i, answer in enumerate(answers):
        if answer.error:
            newcomers += 1
            # Its error is not taken for a loss: nobody of the other pool goes on.
            assert len(answer.text) <= 7
            assert answer.text == echo_of(prompt_of(i), len(answer.text))
        else:
            assert_exact(answer, prompt_of(i), 20)
    # 25 % of 200: 50, and five standard deviations of 6.1 where it is by chance.
    assert 20 <= newcomers <= 80

    new.kill()
    wait_until(lambda: "new" not in frontend.states(), "the newcomer is gone")
    for i in range(20):
        assert_exact(stream_completion(frontend, prompt_of(i), 20), prompt_of(i), 20)
    assert old_pool in served_pools(frontend)


def test_lost_request_never_moves_to_another_pool(fleet):
    frontend = fleet.frontend(new_pool_share=0, wait_for_worker="300ms")
    (old,) = fleet.echo_workers("old", max_sequence=4096, echo_step_us=2000)
    frontend.wait_workers("old")
    fleet.echo_workers("new", max_sequence=8192)
    frontend.wait_workers("old", "new")
    streams = Streams(frontend, 4, 1000)
    streams.wait_for_tokens(10)
    assert frontend.load("new") == (0, 0)
    old.kill()
    for prompt, answer in zip(streams.prompts, streams.answers(), strict=True):
        assert answer.error, str(answer)
        assert answer.text == echo_of(prompt, len(answer.tokens))
    # The pool that is left has all of the traffic now, whatever its share was.
    assert_exact(stream_completion(frontend, "hello", 12), "hello", 12)


def test_several_models_and_aliases(fleet):
    frontend = fleet.frontend(alias=["fast=small", "best=big"])
    fleet.echo_workers("w1", served_model_name="small")
    fleet.echo_workers("w2", served_model_name="big", model_alias="large")
    frontend.wait_workers("w1", "w2")
    with openai_client(frontend) as client:
        assert {m.id for m in client.models.list().data} >= {"small", "big"}
    for name in ("small", "big", "fast", "best", "large"):
        assert_exact(stream_completion(frontend, "hello", 12, model=name), "hello", 12)
    answer = stream_completion(frontend, "hello", 12, model="absent")
    assert answer.status == 404, str(answer)
