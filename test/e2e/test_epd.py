"""Prefill and decode on workers of their own: the text is the same as from one worker, whatever
carries the KV and whoever dies."""

import random
import re
import tempfile
import urllib.request

import epd_fleet
import pytest
import same_answers
import stator_process
from conftest import read_metrics, wait_until
from metrics_text import Metrics
from same_answers import METHODS, NEAR_TIE, answers_of, prompts_of_mixed_length

QUICK = {"link_silent_after": "500ms", "link_lost_after": "3s", "wait_for_worker": "10s"}
ALWAYS = {"router_disaggregation": "always"}
FAULTS = 12


def transfer_options(method):
    options = same_answers.transfer_options(method)
    if options is None:
        pytest.skip("STATOR_NIXL is not set: NIXL is not tried")
    return options


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
        gap = same_answers.gap_where_they_part(answer, whole)
        assert gap is None or gap < NEAR_TIE, f"{answer.text!r}, not {whole.text!r}"
    assert handoffs(decode, "claimed") == len(prompts)


def test_workers_die_and_transfers_are_cut_under_load():
    """A few faults of each kind; `./dev bench epd_faults` does hundreds, and weighs what is left."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="stator-fleet-") as folder:
        bodies = epd_fleet.requests(40)
        expected = epd_fleet.whole_answers(folder, bodies)
        with epd_fleet.EpdFleet(folder, "tcp") as city:
            with epd_fleet.Load(city.frontend, bodies, expected) as load:
                faults = (*epd_fleet.KILLS, epd_fleet.CUT)
                for fault in epd_fleet.order_of_faults(faults, FAULTS, rng):
                    assert city.do(fault, rng), f"no transfer was under way: {load.outcomes}"
            assert not load.odd, f"{load.outcomes}, first: {load.odd[0][1]}"
            assert load.outcomes["right"] > 10 * FAULTS, load.outcomes
            assert load.outcomes["clear error"] * 20 < load.outcomes["right"], load.errors
            assert city.settle() == 0, "handoffs are left when their leases are over"
            assert read_metrics(city.frontend).sum("stator_bugs_total") == 0
