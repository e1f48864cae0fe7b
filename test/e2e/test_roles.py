"""What a frontend says of workers that do a part of each request."""

import json

import pictures
import pytest
from conftest import wait_until

MOCK = {"engine": "mock", "mock_preset": "constant-10ms", "mock_mean_output": 0,
        "speedup": 20, "max_sequence": 8192, "served_model_name": "echo"}


def start(fleet, **roles):
    workers = {name: fleet.worker(name, role=role, **MOCK).launch()
               for name, role in roles.items()}
    for worker in workers.values():
        worker.wait_ready()
    return workers


def complete(frontend, prompt):
    body = json.dumps({"model": "echo", "prompt": prompt, "max_tokens": 8, "ignore_eos": True})
    status, _, answer = frontend.request("POST", "/v1/completions", body,
                                         {"Content-Type": "application/json"})
    return status, json.loads(answer)


def chat(frontend, text, *images):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    body = json.dumps({"model": "echo", "max_tokens": 8, "ignore_eos": True, "messages": [
        {"role": "user", "content": [{"type": "text", "text": text}, *parts]}]})
    status, _, answer = frontend.request("POST", "/v1/chat/completions", body,
                                         {"Content-Type": "application/json"})
    return status, json.loads(answer)


def routers(frontend):
    status, _, body = frontend.request("GET", "/router")
    assert status == 200
    return json.loads(body)["pools"]


def pool_of(frontend):
    (pool,) = frontend.health()["fleet"]["pools"]
    return pool


def test_health_and_router_show_roles_and_splits(fleet):
    start(fleet, p0="prefill", p1="prefill", d="decode")
    frontend = fleet.frontend(router_disaggregation="always")
    frontend.wait_workers("p0", "p1", "d")
    assert {name: w["roles"] for name, w in frontend.workers().items()} == {
        "p0": ["prefill"], "p1": ["prefill"], "d": ["decode"]
    }
    assert "tcp" in frontend.workers()["d"]["transfer_methods"]
    pool = pool_of(frontend)
    assert pool["roles"] == {
        "prefill": {"workers": 2, "ready": 2, "ready_ranks": 2},
        "decode": {"workers": 1, "ready": 1, "ready_ranks": 1},
    }
    assert pool["disaggregation"] == "always"
    assert "cannot_serve" not in pool
    for i in range(6):
        assert complete(frontend, f"{i} a prompt " * 40)[0] == 200
    (router,) = routers(frontend)
    assert router["disaggregation"] == "always"
    splits = router["splits"]
    assert (splits["possible"], splits["split"], splits["whole"]) == (True, 6, 0)
    assert splits["break_even_tokens"] > 100
    ways = {(w["from"], w["to"]): w for w in splits["handoffs"]}
    assert sum(w["count"] for w in ways.values()) == 6
    assert set(ways) <= {("p0/0", "d/0"), ("p1/0", "d/0")}
    assert all(w["mean_ms"] > 0 and w["tokens_per_s"] > 0 for w in ways.values())
    ranks = {r["rank"]: r for r in router["ranks"]}
    assert ranks["p0/0"]["roles"] == ["prefill"]
    assert ranks["p0/0"]["unclaimed_limit"] > 0

    def nothing_left():
        loads = [r for r in routers(frontend)[0]["ranks"] if r["roles"] == ["prefill"]]
        return all(r["unclaimed_handoffs"] == 0 and r["unclaimed_bytes"] == 0 for r in loads)

    wait_until(nothing_left, "all was taken")


@pytest.mark.parametrize("method", [None, "shm", "tcp"])
def test_encoders_beside_workers_for_whole_requests(fleet, method):
    options = {"transfer": method} if method else {}
    for name, role in (("e", "encode"), ("w", "aggregated")):
        fleet.worker(name, role=role, **MOCK, **options).start()
    frontend = fleet.frontend()
    frontend.wait_workers("e", "w")
    assert set(frontend.workers()["w"]["transfer_methods"]) == ({method} if method
                                                                else {"shm", "tcp"})
    picture = pictures.data_url(pictures.png(64, 64, lambda x, y: (x, y, 0)))
    plain, seen = chat(frontend, "hello"), chat(frontend, "hello", picture)
    assert plain[0] == seen[0] == 200, seen
    assert seen[1]["usage"]["prompt_tokens"] > plain[1]["usage"]["prompt_tokens"]
    assert seen[1]["choices"][0]["message"] != plain[1]["choices"][0]["message"]


def test_pictures_that_no_worker_can_take_over_are_not_the_clients_fault(fleet):
    fleet.worker("e", role="encode", transfer="shm", **MOCK).start()
    fleet.worker("w", role="aggregated", transfer="tcp", **MOCK).start()
    frontend = fleet.frontend(wait_for_worker="300ms")
    frontend.wait_workers("e", "w")
    assert chat(frontend, "hello")[0] == 200
    picture = pictures.data_url(pictures.png(64, 64, lambda x, y: (x, y, 0)))
    status, answer = chat(frontend, "hello", picture)
    assert status == 503, answer
    assert "no transfer method in common" in answer["error"]["message"]


@pytest.mark.parametrize("lost", ["terminate", "kill"])
def test_a_pool_without_a_decode_worker_says_so(fleet, lost):
    workers = start(fleet, p="prefill", d="decode")
    frontend = fleet.frontend(wait_for_worker="300ms", link_silent_after="500ms",
                              link_lost_after="1s")
    frontend.wait_workers("p", "d")
    assert complete(frontend, "hello")[0] == 200
    getattr(workers["d"], lost)()
    wait_until(lambda: "cannot_serve" in pool_of(frontend), "the pool knows")
    assert "no decode worker is ready" in pool_of(frontend)["cannot_serve"]
    health = frontend.health()
    assert health["status"] == "unhealthy"
    assert any("no decode worker" in concern for concern in health["degraded"])

    def named():
        status, answer = complete(frontend, "hello")
        assert status == 503, answer
        return "no decode worker is ready" in answer["error"]["message"]

    wait_until(named, "the refusal names the role")
    start(fleet, d2="decode")
    wait_until(lambda: complete(frontend, "hello")[0] == 200, "another one has come")
    assert frontend.health()["status"] == "ready"
