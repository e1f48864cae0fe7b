"""Prefill and decode on workers of their own: the text is the same as from one worker, whatever
carries the KV and whoever dies."""

import concurrent.futures
import os
import random
import re
import urllib.request

import epd_fleet
import near_ties
import pytest
import stator_process
from answers import stream_completion
from conftest import wait_until
from epd_prompts import prompts_of_mixed_length
from metrics_text import Metrics

METHODS = ("shm", "tcp", "nixl")
QUICK = {"link_silent_after": "500ms", "link_lost_after": "3s", "wait_for_worker": "10s"}
ALWAYS = {"router_disaggregation": "always"}


def transfer_options(method):
    if method != "nixl":
        return {"transfer": method}
    library = os.environ.get("STATOR_NIXL", "")
    if not library:
        pytest.skip("STATOR_NIXL is not set: NIXL is not tried")
    return {"transfer": "nixl", "nixl_library": library}


def answers_of(frontend, prompts, max_tokens, at_once=8, **fields):
    def one(prompt):
        return stream_completion(
            frontend, prompt, max_tokens, timeout=120, temperature=0, ignore_eos=True, **fields
        )

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(one, prompts))
    for answer in answers:
        assert answer.complete, str(answer)
    return answers


def metrics_of(worker):
    """Of a worker that shows them."""
    port = int(re.search(r"Health and metrics are shown\. port=(\d+)", worker.log()).group(1))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return Metrics(answer.read().decode())


def handoffs(worker, outcome):
    try:
        return metrics_of(worker).sum("stator_worker_handoffs_total", outcome=outcome, kind="kv")
    except KeyError:
        return 0


def start_roles(fleet, roles, **options):
    """A worker for each role, named after it, started together."""
    workers = [
        fleet.worker(f"{role}-{i}", role=role, worker_http="127.0.0.1:0", **options).launch()
        for i, role in enumerate(roles)
    ]
    for worker in workers:
        worker.wait_ready()
    return workers


MOCK = {"engine": "mock", "mock_preset": "constant-10ms", "mock_mean_output": 0,
        "speedup": 20, "max_sequence": 8192, "served_model_name": "echo"}


@pytest.fixture(scope="module")
def mock_texts(shared_fleet):
    """What one mock worker answers."""
    whole = shared_fleet.worker("whole", **MOCK).start()
    frontend = shared_fleet.frontend()
    frontend.wait_workers("whole")
    prompts = prompts_of_mixed_length(100, 80)
    texts = [a.text for a in answers_of(frontend, prompts, 12)]
    whole.stop()
    return prompts, texts


@pytest.mark.parametrize("method", METHODS)
def test_mock_split_text_is_the_whole_one(fleet, mock_texts, method):
    prompts, expected = mock_texts
    prefill, decode = start_roles(
        fleet, ["prefill", "decode"], **MOCK, **transfer_options(method)
    )
    frontend = fleet.frontend(**ALWAYS)
    frontend.wait_workers("prefill-0", "decode-1")
    assert [a.text for a in answers_of(frontend, prompts, 12)] == expected
    # Of a prompt that decode has in its cache already nothing is fetched.
    assert handoffs(decode, "claimed") + handoffs(decode, "cached") == len(prompts)
    assert handoffs(decode, "claimed") > 80
    wait_until(lambda: unclaimed(prefill) == 0, "nothing is left unclaimed")


def unclaimed(worker):
    return metrics_of(worker).sum("stator_transfer_unclaimed_bytes")


def test_short_prompts_are_not_split(fleet):
    """Ten tokens are computed faster than they are handed over."""
    prefill, decode = start_roles(fleet, ["prefill", "decode"], **MOCK)
    frontend = fleet.frontend(**QUICK)
    frontend.wait_workers("prefill-0", "decode-1")
    answers_of(frontend, [f"short prompt {i}" for i in range(10)], 4, at_once=1)
    assert handoffs(decode, "claimed") == 0


LLAMA = {"engine_threads": 1, "context": 8192, "max_sequence": 2048, "served_model_name": "llama"}


@pytest.fixture(scope="module")
def llama_answers(shared_fleet):
    llama = shared_fleet.worker("llama", stator_process.model(), **LLAMA).start()
    server = shared_fleet.frontend()
    server.wait_workers("llama")
    prompts = prompts_of_mixed_length(10, 300)
    answers = answers_of(server, prompts, 12, at_once=1, logprobs=2, model="llama")
    llama.stop()
    return prompts, answers


@pytest.mark.parametrize("method", METHODS)
def test_llama_split_text_is_the_whole_one(fleet, llama_answers, method):
    prompts, expected = llama_answers
    _, decode = start_roles(fleet, ["prefill", "decode"], model_path=stator_process.model(),
                            **LLAMA, **transfer_options(method))
    frontend = fleet.frontend(**ALWAYS)
    frontend.wait_workers("prefill-0", "decode-1")
    answers = answers_of(frontend, prompts, 12, at_once=1, logprobs=2, model="llama")
    for answer, whole in zip(answers, expected, strict=True):
        assert_same_until_near_tie(answer, whole)
    assert handoffs(decode, "claimed") == len(prompts)


def assert_same_until_near_tie(answer, whole):
    i = near_ties.first_difference(answer.token_texts, whole.token_texts)
    if i is not None:
        gap = near_ties.gap(whole.best[i].values())
        assert gap < near_ties.EPSILON, f"token {i} of {whole.text!r}: {answer.text!r}"


@pytest.fixture(scope="module")
def chats_and_answers(tmp_path_factory):
    bodies = epd_fleet.requests(40)
    return bodies, epd_fleet.whole_answers(tmp_path_factory.mktemp("whole"), bodies)


@pytest.mark.parametrize("method", ["shm", "tcp"])
def test_workers_die_and_transfers_are_cut_under_load(tmp_path, chats_and_answers, method):
    """`./dev bench epd_faults` does more of this."""
    bodies, expected = chats_and_answers
    faults = epd_fleet.FAULTS if method == "tcp" else epd_fleet.FAULTS[:3]
    rng = random.Random(5)
    with epd_fleet.EpdFleet(tmp_path, method) as fleet:
        with epd_fleet.Load(fleet.frontend, bodies, expected) as load:
            for fault in epd_fleet.order_of_faults(faults, 6, seed=5):
                assert fleet.do(fault, rng), fault
        assert set(load.outcomes) == {"right"}, (load.outcomes, load.errors, load.odd[:3])
        assert load.outcomes["right"] >= 10
        assert fleet.settle() == 0
