"""Several frontends route to the same workers and tell each other what they book."""

import concurrent.futures
import json
import time

from conftest import wait_until
from stator_process import StatorFrontend

WORKERS = [f"w{i}" for i in range(8)]
PRESET = "llama-3.3-70b-fp8-2xh100"  # a prompt of 4,096 tokens takes some 0.4 s
PROMPT = [1 + (i * 7 + i // 240) % 240 for i in range(4096)]


def pool(frontend):
    """The one pool of GET /router; empty until it is served."""
    pools = json.loads(frontend.request("GET", "/router")[2])["pools"]
    return pools[0] if pools else {}


def peers(frontend):
    return pool(frontend).get("peers", [])


def start(fleet, count=2, **options):
    for name in WORKERS:
        fleet.mock_worker(name, threads=1, mock_blocks=20_000, mock_preset=PRESET)
    frontends = [fleet.frontend(**options) for _ in range(count)]
    for frontend in frontends:
        frontend.wait_workers(*WORKERS)
    return frontends


def complete(frontend, prompt, max_tokens):
    body = {"model": "mock", "prompt": prompt, "max_tokens": max_tokens}
    status, _, answer = frontend.request("POST", "/v1/completions", body, timeout=60)
    assert status == 200, answer
    return json.loads(answer)["usage"]


def metric(frontend, name):
    body = frontend.request("GET", "/metrics")[2].decode()
    return sum(float(line.split()[-1]) for line in body.splitlines() if line.startswith(name + "{"))


def test_a_burst_over_two_frontends_is_prefilled_on_few_workers(fleet):
    a, b = start(fleet)
    wait_until(lambda: len(peers(a)) == 1 and len(peers(b)) == 1, "both know each other")
    with concurrent.futures.ThreadPoolExecutor(32) as threads:
        # How fast the workers are is learned first.
        other = [[i + 1, *PROMPT[:2000]] for i in range(48)]
        for run in [threads.submit(complete, (a, b)[i % 2], p, 2) for i, p in enumerate(other)]:
            run.result()
        wait_until(lambda: all(p["bookings"] == 0 for p in peers(a) + peers(b)), "it is quiet")
        runs = [threads.submit(complete, a, PROMPT, 40)]
        wait_until(lambda: peers(b)[0]["bookings"] == 1, "the first is known to the other")
        runs += [threads.submit(complete, (a, b)[i % 2], PROMPT, 8) for i in range(31)]
        usages = [run.result() for run in runs]
    computed = sum(u["prompt_tokens"] - u["prompt_tokens_details"]["cached_tokens"] for u in usages)
    assert computed <= 2.5 * len(PROMPT), computed / len(PROMPT)
    wait_until(lambda: all(p["bookings"] == 0 for p in peers(a) + peers(b)), "all is over")
    wait_until(lambda: peers(a)[0]["in_step"] and peers(b)[0]["in_step"], "digests fit")
    assert metric(a, "stator_router_peers") == 1
    assert pool(b)["sharing"]["deltas"] > 0


def test_requests_of_the_other_are_load_and_go_with_it(fleet):
    a, b = start(fleet)
    wait_until(lambda: len(peers(b)) == 1, "they know each other")
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        runs = [threads.submit(complete, a, PROMPT[i:], 2000) for i in range(6)]
        wait_until(lambda: peers(b)[0]["bookings"] == 6, "the other's bookings are known")
        assert pool(b)["peers_bookings"] == 6
        wait_until(lambda: metric(b, "stator_router_peer_bookings") == 6, "the metric says so")
        a.process.kill()
        killed = time.monotonic()
        wait_until(lambda: pool(b)["peers_bookings"] == 0, "they are dropped")
        assert time.monotonic() - killed < 6
        for run in runs:
            assert run.exception() is not None
    assert complete(b, PROMPT, 4)["completion_tokens"] == 4
    # Who comes in its place is known again, and knows what is under way.
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(complete, b, PROMPT[i:], 300) for i in range(2)]
        c = fleet.frontend()
        c.wait_workers(*WORKERS)
        wait_until(lambda: peers(c) and peers(c)[0]["bookings"] == 2, "what was before is asked for")
        for run in runs:
            run.result()
    wait_until(lambda: len(peers(b)) == 1 and peers(b)[0]["in_step"], "the new one is known")


def test_one_that_ends_takes_its_file_along(fleet):
    a, b = start(fleet)
    wait_until(lambda: len(peers(b)) == 1, "they know each other")
    files = list(fleet.folder.rglob("*.frontend"))
    assert len(files) == 2
    a.stop()
    wait_until(lambda: peers(b) == [], "it is dropped", seconds=2)
    assert len(list(fleet.folder.rglob("*.frontend"))) == 1


def test_sharing_can_be_switched_off(fleet):
    a, b = start(fleet, router_replica_sync="false")
    time.sleep(1)
    assert peers(a) == [] and peers(b) == []
    assert list(fleet.folder.rglob("*.frontend")) == []


def test_frontends_named_without_a_folder(fleet, tmp_path):
    """--router-peers, and no folder where both look."""
    a = fleet.frontend()
    worker = fleet.mock_worker("w0", threads=1)
    files = list(fleet.folder.rglob("*.frontend"))
    address = files[0].read_text().splitlines()[0]
    assert address.startswith("unix:"), address
    named = {"router_peers": address, "discover": f"unix:{files[0].parent}/{worker.name}.sock"}
    with StatorFrontend(tmp_path, threads=1, **named) as other:
        a.wait_workers("w0")
        other.wait_workers("w0")
        wait_until(lambda: len(peers(other)) == 1, "the named one is followed")
        assert peers(a) == []  # nobody has told it
