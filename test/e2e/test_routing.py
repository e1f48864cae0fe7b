"""The router at work: mock workers, a frontend, `stator bench`."""

import json
import signal
import subprocess
import time

import pytest
import stator_process
from stator_process import StatorFrontend, StatorWorker

GROUPS = 24
ISL = 1024
PREFIX = 960
REQUESTS = 480


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Three, each with room for a third of the groups' prefixes and a bit more."""
    folder = tmp_path_factory.mktemp("routing")
    options = {"mock_preset": "constant-10ms", "mock_blocks": 1400, "speedup": 4, "threads": 1}
    running = [StatorWorker(folder, f"w{i}", engine="mock", **options) for i in range(3)]
    try:
        for worker in running:
            worker.start()
        yield folder
    finally:
        for worker in running:
            worker.stop()


def bench(url, seed, tmp_path):
    out = tmp_path / f"report-{seed}.json"
    command = [stator_process.binary(), "bench", "--url", url, "--api", "tokens"]
    command += ["--kind", "shared-prefix", "--groups", GROUPS, "--isl", ISL, "--prefix", PREFIX]
    command += ["--osl", 8, "--rate", 60, "--requests", REQUESTS, "--seed", seed, "--json", out]
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert {o["outcome"]: o["count"] for o in report["outcomes"]} == {"ok": REQUESTS}
    return report


def best_possible():
    """Every request but a group's first finds the prefix; blocks of 16."""
    return (REQUESTS - GROUPS) * PREFIX / (REQUESTS * ISL)


def test_requests_go_where_their_prefix_is(workers, tmp_path):
    """Random spreads 24 groups over caches that hold 20 each; the router keeps them apart."""
    ratios = {}
    for seed, policy in enumerate(("random", "expected-ttft")):
        with StatorFrontend(workers, router_policy=policy) as frontend:
            frontend.wait_workers("w0", "w1", "w2")
            ratios[policy] = bench(frontend.base_url, seed + 1, tmp_path)["cached_ratio"]
    assert ratios["expected-ttft"] >= 0.95 * best_possible(), ratios
    assert ratios["random"] <= 0.9 * ratios["expected-ttft"], ratios


def metric(frontend, name):
    body = frontend.request("GET", "/metrics")[2].decode()
    return sum(float(line.split()[-1]) for line in body.splitlines() if line.startswith(name))


def test_a_new_frontend_learns_what_workers_hold(workers, tmp_path):
    """Snapshots fill its index; its first requests go to the caches that others filled."""
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        bench(frontend.base_url, 7, tmp_path)
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        # The same groups again: nothing is left of their first misses.
        report = bench(frontend.base_url, 7, tmp_path)
        assert report["cached_ratio"] >= 0.93 * PREFIX / ISL
        said, seen = (
            metric(frontend, f"stator_router_{kind}cached_tokens_total")
            for kind in ("predicted_", "")
        )
        assert abs(said - seen) <= 0.05 * seen
        assert metric(frontend, "stator_router_index_blocks") > 0


def test_without_events_what_was_sent_is_remembered(workers, tmp_path):
    with StatorFrontend(workers, router_kv_events="false") as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        assert bench(frontend.base_url, 11, tmp_path)["cached_ratio"] >= 0.85 * best_possible()


def test_unknown_policies_are_refused(tmp_path):
    done = subprocess.run(
        [stator_process.binary(), "frontend", "--port", "0", "--router-policy", "randon"],
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(stator_process.fleet_environment(tmp_path)),
    )
    assert done.returncode == 2
    assert "random" in done.stderr and "expected-ttft" in done.stderr


def ask(frontend, **headers):
    body = {"model": "mock", "prompt": [7] * 320, "max_tokens": 4}
    headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    status, answered, text = frontend.request("POST", "/v1/completions", body, headers)
    return status, {k.lower(): v for k, v in answered.items()}, json.loads(text)


def test_a_decision_explains_itself(workers):
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        assert "x-stator-explain" not in ask(frontend)[1]
        status, headers, _ = ask(frontend, x_stator_explain=1)
        assert status == 200
        why = json.loads(headers["x-stator-explain"])
        assert why["policy"] == "expected-ttft" and why["prompt_tokens"] == 320
        assert len(why["ranks"]) == 3
        best = why["chosen"]
        assert best["worker"] in ("w0/0", "w1/0", "w2/0")
        # Its prompt was just computed there.
        assert best["cached_tokens"] >= 288
        assert all(c["predicted_ttft_ms"] >= 0 for c in why["ranks"])


def test_hints_pin_and_keep_sessions(workers):
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        for name in ("w0", "w2", "w1"):
            _, headers, _ = ask(frontend, x_stator_worker=name, x_stator_explain=1)
            assert json.loads(headers["x-stator-explain"])["chosen"]["worker"] == f"{name}/0"
        status, _, answer = ask(frontend, x_stator_worker="w9")
        assert status == 404 and "w9" in answer["error"]["message"]
        status, _, answer = ask(frontend, x_stator_rank="-1")
        assert status == 400 and answer["error"]["param"] == "x-stator-rank"
        state = json.loads(frontend.request("GET", "/router")[2])
        (pool,) = state["pools"]
        assert pool["policy"] == "expected-ttft"
        assert [r["rank"] for r in pool["ranks"]] == ["w0/0", "w1/0", "w2/0"]
        assert all(r["kv_events"] == "live" and r["blocks"] > 0 for r in pool["ranks"])
    with StatorFrontend(workers, router_hints="nobody") as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        status, headers, _ = ask(frontend, x_stator_worker="w9", x_stator_explain=1)
        assert status == 200 and "x-stator-explain" not in headers


def post(frontend, action, **body):
    status, _, text = frontend.request("POST", f"/router/{action}", body)
    return status, json.loads(text)


def chosen(headers):
    return json.loads(headers["x-stator-explain"])["chosen"]


def test_the_body_may_say_it_too(workers):
    """What clients of NVIDIA Dynamo send."""
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")

        def with_nvext(nvext, **more):
            body = {"model": "mock", "prompt": [7] * 320, "max_tokens": 4, "nvext": nvext, **more}
            status, headers, text = frontend.request(
                "POST", "/v1/completions", body, {"x-stator-explain": "1"}
            )
            return status, {k.lower(): v for k, v in headers.items()}, json.loads(text)

        for name in ("w2", "w0"):
            _, headers, _ = with_nvext({"backend_instance_id": name})
            assert chosen(headers)["worker"] == f"{name}/0"
        status, _, answer = with_nvext({"agent_hints": {"osl": "long"}})
        assert status == 400 and answer["error"]["param"] == "nvext.agent_hints.osl"
        # The prompt is known, but not under this salt; the second time it is.
        for cached in (0, 288):
            _, headers, answer = with_nvext({"cache_salt": "of tenant 7"})
            assert chosen(headers)["cached_tokens"] >= cached
            details = answer["usage"]["prompt_tokens_details"] or {}
            assert (details.get("cached_tokens", 0) > 0) == (cached > 0)
        _, _, answer = with_nvext({"token_data": [9] * 33})
        assert answer["usage"]["prompt_tokens"] == 33


def test_a_key_may_be_trusted(workers, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sk-0123456789abcdef hints=yes\nsk-fedcba9876543210\n")
    keys.chmod(0o600)
    with StatorFrontend(workers, api_key_file=keys, router_hints="nobody") as frontend:
        frontend.wait_workers("w0", "w1", "w2")

        def explained(key):
            headers = ask(frontend, x_stator_explain=1, authorization=f"Bearer {key}")[1]
            return "x-stator-explain" in headers

        assert explained("sk-0123456789abcdef")
        assert not explained("sk-fedcba9876543210")

        # The same holds for those who only ask.
        for key, status in (("sk-0123456789abcdef", 200), ("sk-fedcba9876543210", 403)):
            headers = {"authorization": f"Bearer {key}"}
            asked = {"tokens": [1, 2, 3], "worker": "w1"}
            for action in ("select", "dump"):
                assert frontend.request("POST", f"/router/{action}", asked, headers)[0] == status
            asked = {"tokens": [1], "worker": "w9"}
            _, _, text = frontend.request("POST", "/router/reserve", asked, headers)
            # Who is not trusted can't pin: the name that nobody has is passed over.
            assert ("w9" in text.decode()) == (status == 200), text


def test_the_policy_direct_goes_where_it_is_told(workers):
    with StatorFrontend(workers, router_policy="direct") as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        status, _, answer = ask(frontend)
        assert status == 400 and "x-stator-worker" in answer["error"]["message"]
        status, headers, _ = ask(frontend, x_stator_worker="w1", x_stator_explain=1)
        assert status == 200 and chosen(headers)["worker"] == "w1/0"


def wait_log(process, text, seconds=20):
    end = time.monotonic() + seconds
    while text not in process.log():
        assert time.monotonic() < end, process.log_tail()
        time.sleep(0.05)


def test_the_router_takes_new_settings_as_it_runs(workers, tmp_path):
    """A changed file is noticed; a wrong one changes nothing."""
    file = tmp_path / "stator.yaml"
    file.write_text("router:\n  policy: least-loaded\n")

    def policy(frontend):
        return json.loads(frontend.request("GET", "/router")[2])["pools"][0]["policy"]

    with StatorFrontend(workers, config=file) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        assert policy(frontend) == "least-loaded"
        file.write_text("router:\n  policy: expected-ttft\n  work_weight: -1\n")
        frontend.signal(signal.SIGHUP)
        wait_log(frontend, "can't be read again")
        assert policy(frontend) == "least-loaded"
        new = tmp_path / "new.yaml"
        new.write_text("router:\n  policy: expected-ttft\n  work_weight: 0.5\n")
        new.rename(file)  # no signal: seen within two seconds
        wait_log(frontend, "The router has new settings")
        assert policy(frontend) == "expected-ttft"
        assert ask(frontend)[0] == 200


def test_the_router_serves_others(workers):
    """Selection without sending: select, reserve, first_token, release, overlap."""
    tokens = [n * n % 251 for n in range(320)]
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        status, why = post(frontend, "select", model="mock", tokens=tokens)
        assert status == 200 and len(why["ranks"]) == 3
        status, first = post(frontend, "reserve", tokens=tokens, session="s")
        assert status == 200 and first["worker"] in ("w0", "w1", "w2") and first["rank"] == 0
        status, second = post(frontend, "reserve", tokens=tokens, worker="w1")
        assert status == 200 and second["worker"] == "w1"
        state = json.loads(frontend.request("GET", "/router")[2])
        assert state["pools"][0]["bookings"] == 2
        assert post(frontend, "first_token", booking=first["booking"], cached_tokens=0)[0] == 200
        for booked in (first, second):
            assert post(frontend, "release", booking=booked["booking"])[0] == 200
            assert post(frontend, "release", booking=booked["booking"])[0] == 404
        state = json.loads(frontend.request("GET", "/router")[2])
        assert state["pools"][0]["bookings"] == 0

        ask(frontend, x_stator_worker="w1")
        body = {"tokens": [7] * 320}

        def held():
            ranks = post(frontend, "overlap", **body)[1]["ranks"]
            return {r["rank"]: r["device_blocks"] for r in ranks}.get("w1/0", 0)

        # Events come a moment after the answer.
        end = time.monotonic() + 10
        while held() != 20:
            assert time.monotonic() < end, held()
            time.sleep(0.02)

        loads = {r["rank"]: r for r in post(frontend, "loads", model="mock")[1]["ranks"]}
        assert set(loads) == {"w0/0", "w1/0", "w2/0"}
        held = set()
        skip = 0
        while skip is not None:
            _, page = post(frontend, "dump", worker="w1", skip=skip, limit=15)
            assert page["blocks"] == loads["w1/0"]["blocks"]
            some = [h for run in page["runs"] for h in run["sequence_hashes"]]
            assert some and len(some) <= 15
            held.update(some)
            skip = page["next_skip"]
        assert len(held) == loads["w1/0"]["blocks"] >= 20


@pytest.mark.parametrize(
    "action, body, status, says",
    [
        ("select", {"tokens": []}, 400, "tokens"),
        ("select", {"tokens": [-1]}, 400, "tokens"),
        ("select", {"tokens": [1], "model": "x"}, 404, "model x"),
        ("select", {"tokens": [1], "worker": "w9"}, 404, "w9"),
        ("select", {"tokens": [1], "rank": "0"}, 400, "rank"),
        ("reserve", {"tokens": [1], "session": 7}, 400, "session"),
        ("release", {}, 400, "booking"),
        ("release", {"booking": "00ff"}, 404, "no such booking"),
        ("dump", {}, 404, "worker"),
        ("dump", {"worker": "w1", "rank": 1}, 404, "rank 1"),
        ("dump", {"worker": "w1", "limit": 0}, 400, "limit"),
        ("explode", {}, 404, "select, reserve"),
    ],
)
def test_what_the_router_refuses(workers, action, body, status, says):
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        got, answer = post(frontend, action, **body)
        assert got == status and says in answer["error"]["message"]


class StatorRouter(StatorFrontend):
    """`stator router`: the same process by another name."""

    def command(self):
        words = super().command()
        words[words.index("frontend")] = "router"
        return words


def test_frontends_share_a_router_and_live_without_it(workers):
    body = {"model": "mock", "prompt": [n % 113 for n in range(640)], "max_tokens": 2}
    with StatorRouter(workers) as router:
        router.wait_workers("w0", "w1", "w2")
        options = {"router_remote": router.base_url, "router_policy": "random"}
        with StatorFrontend(workers, **options) as a, StatorFrontend(workers, **options) as b:
            for frontend in (a, b):
                frontend.wait_workers("w0", "w1", "w2")
            cached = []
            for frontend in (a, b) * 4:
                status, _, text = frontend.request("POST", "/v1/completions", body)
                assert status == 200
                details = json.loads(text)["usage"]["prompt_tokens_details"] or {}
                cached.append(details.get("cached_tokens", 0))
                time.sleep(0.2)  # events come a moment after the answer
            # They choose at random; the router does not.
            assert all(c > 600 for c in cached[1:]), cached
            assert metric(a, "stator_router_remote_asked_total") == 4
            assert metric(a, "stator_router_remote_failed_total") == 0

            def bookings():
                return json.loads(router.request("GET", "/router")[2])["pools"][0]["bookings"]

            end = time.monotonic() + 10
            while bookings() != 0:
                assert time.monotonic() < end, bookings()
                time.sleep(0.02)

            router.kill()
            for frontend in (a, b) * 3:
                assert frontend.request("POST", "/v1/completions", body)[0] == 200
            assert metric(a, "stator_router_remote_failed_total") == 3


def concerns(frontend):
    return frontend.health().get("degraded", [])


def test_a_worker_whose_events_are_lost_shows_in_health(tmp_path):
    """Every second of its events is lost before it gets a number: no gap tells the frontend, only
    what the events contradict and what the cache gives."""
    options = {"mock_preset": "constant-10ms", "mock_blocks": 1400, "speedup": 4, "threads": 1}
    options["step_tokens"] = 128  # eight events a prompt
    faults = {"mock_faults": "lose-events@0s+10h:0.5"}
    with (
        StatorWorker(tmp_path, "good", engine="mock", **options),
        StatorWorker(tmp_path, "bad", engine="mock", **options, **faults),
        StatorFrontend(tmp_path) as frontend,
    ):
        frontend.wait_workers("good", "bad")
        assert frontend.health()["status"] == "ready"
        bench(frontend.base_url, 3, tmp_path)
        status, _, body = frontend.request("GET", "/health")
        health = json.loads(body)
        assert status == 200 and health["status"] == "degraded", health
        (concern,) = health["degraded"]
        assert concern.startswith("bad/0's "), concern
        assert "not trusted" in concern or "snapshot" in concern
        ranks = json.loads(frontend.request("GET", "/router")[2])["pools"][0]["ranks"]
        trust = {rank["rank"]: rank["trust"] for rank in ranks}
        assert trust["good/0"] == "trusted" and trust["bad/0"] != "trusted"
        assert metric(frontend, "stator_router_audit_alarms_total") >= 1
        assert metric(frontend, 'stator_router_ranks{model="mock",trust="trusted"}') == 1


def test_workers_without_faults_are_not_suspected(workers, tmp_path):
    with StatorFrontend(workers) as frontend:
        frontend.wait_workers("w0", "w1", "w2")
        bench(frontend.base_url, 21, tmp_path)
        assert concerns(frontend) == []
        assert metric(frontend, "stator_router_audit_alarms_total") == 0
