"""Requests that wait at the router: tenants, classes, the full queue. Mock workers, a frontend."""

import concurrent.futures
import contextlib
import json
import statistics
import threading
import time

import pytest
from conftest import read_metrics, wait_until
from stator_process import StatorFrontend, StatorWorker

# A token takes 10 ms; two requests run, three are there at most.
WORKER = {"mock_preset": "constant-10ms", "mock_mean_output": 0, "threads": 1}
SLOTS = {"max_running": 2, "max_waiting": 64}


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("admission")
    running = [StatorWorker(folder, f"w{i}", engine="mock", **WORKER, **SLOTS) for i in range(2)]
    try:
        for worker in running:
            worker.start()
        yield folder
    finally:
        for worker in running:
            worker.stop()


@contextlib.contextmanager
def frontend(folder, extra=(), **options):
    with StatorFrontend(folder, extra=list(extra), **options) as server:
        yield server.wait_workers("w0", "w1")


def ask(server, number, tokens=20, **headers):
    """(status, headers, seconds) of a completion."""
    body = {"model": "mock", "prompt": [7 + number % 200] * 40, "max_tokens": tokens}
    body |= {"ignore_eos": True}
    headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    begin = time.monotonic()
    status, answered, _ = server.request("POST", "/v1/completions", body, headers)
    return status, {k.lower(): v for k, v in answered.items()}, time.monotonic() - begin


def queue(server):
    (pool,) = json.loads(server.request("GET", "/router")[2])["pools"]
    return pool["queue"]


@contextlib.contextmanager
def flood(server, clients, **headers):
    """So many clients, each with one request after the other, until the block ends."""
    done = threading.Event()

    def client(number):
        while not done.is_set():
            assert ask(server, number, **headers)[0] == 200

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(client, i) for i in range(clients)]
        try:
            wait_until(lambda: queue(server)["standard"] > clients // 2, "the flood waits")
            yield
        finally:
            done.set()
        for future in futures:
            future.result()


def test_a_tenant_is_not_held_up_by_anothers_flood(workers):
    with frontend(workers) as server:
        alone = statistics.mean(ask(server, i, x_stator_tenant="calm")[2] for i in range(5))
        with flood(server, 40, x_stator_tenant="loud"):
            beside = statistics.mean(ask(server, i, x_stator_tenant="calm")[2] for i in range(8))
            assert queue(server)["tenants"] >= 1
            crowd = ask(server, 0, x_stator_tenant="loud")[2]
        # It waits for a place, not behind those 36 who wait: they take ten times as long.
        assert beside < 3 * alone, (alone, beside, crowd)
        assert crowd > 5 * alone, (alone, beside, crowd)
        metrics = read_metrics(server)
        assert metrics.sum("stator_router_queue_seconds_count") > 40
        wait_until(lambda: queue(server)["standard"] == 0, "the queue is empty")


def test_batch_waits_behind_interactive(workers):
    with frontend(workers) as server:
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            busy = [pool.submit(ask, server, i, 40) for i in range(6)]
            wait_until(lambda: server.load("w0")[0] + server.load("w1")[0] == 4, "all slots run")
            batch = [pool.submit(ask, server, i, 10, x_stator_priority=-1) for i in range(12)]
            wait_until(lambda: queue(server)["batch"] >= 10, "batch requests wait")
            urgent = [pool.submit(ask, server, i, 10, x_stator_priority=5) for i in range(8)]
            wait_until(lambda: queue(server)["interactive"] >= 6, "interactive requests wait")
            slowest = max(f.result()[2] for f in urgent)
            quickest = sorted(f.result()[2] for f in batch)
            assert all(f.result()[0] == 200 for f in (*busy, *batch, *urgent))
        # Those of them that waited had all interactive ones before them.
        assert quickest[2] > slowest, (slowest, quickest)


def test_a_full_queue_is_429_with_retry_after(workers):
    with frontend(workers, router_queue=4) as server:
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda i: ask(server, i, 30), range(30)))
        refused = [headers for status, headers, _ in answers if status == 429]
        served = [seconds for status, _, seconds in answers if status == 200]
        assert len(refused) + len(served) == 30
        assert len(refused) >= 10 and len(served) >= 8
        assert all(int(headers["retry-after"]) >= 1 for headers in refused)
        metrics = read_metrics(server)
        assert metrics.sum("stator_router_queue_refusals_total") == len(refused)


def test_a_deadline_ends_who_waits(workers):
    with frontend(workers, request_timeout="600ms") as server:
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda i: ask(server, i, 30), range(24)))
        late = [seconds for status, _, seconds in answers if status == 504]
        assert late and max(late) < 1.5
        assert {status for status, _, _ in answers} == {200, 504}
        wait_until(lambda: queue(server)["standard"] == 0, "the queue is empty")


def test_keys_are_tenants(workers, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(
        "sk-loud-0123456789 tenant=loud\nsk-calm-0123456789 tenant=calm weight=2\n",
    )
    keys.chmod(0o600)
    loud = {"authorization": "Bearer sk-loud-0123456789"}
    with StatorFrontend(workers, api_key_file=keys, router_hints="nobody") as server:
        wait_until(lambda: ask(server, 0, 1, **loud)[0] == 200, "the model is served")
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            crowd = [pool.submit(ask, server, i, 20, **loud) for i in range(36)]

            def waiting():
                text = server.request("GET", "/router", headers=loud)[2]
                return json.loads(text)["pools"][0]["queue"]["standard"] > 20

            wait_until(waiting, "the crowd waits")
            calm = ask(server, 1, 20, authorization="Bearer sk-calm-0123456789")[2]
            slowest = max(f.result()[2] for f in crowd)
        assert calm < 0.5 * slowest, (calm, slowest)


@pytest.mark.parametrize(
    "flag, value", [("router_tenant", "x=0"), ("router_tenant", "x"), ("router_hold", "-1s")]
)
def test_wrong_settings_are_told(workers, flag, value):
    with pytest.raises(Exception, match="tenant|hold"):
        with StatorFrontend(workers, **{flag: value}):
            pass
