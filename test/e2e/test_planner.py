"""The planner at work: worker processes come and go with the load, orders go out by webhook."""

import http.server
import json
import os
import re
import signal
import subprocess
import threading

import pytest
import stator_process
from conftest import read_metrics, wait_until
from stator_process import ChildServer, StatorFrontend, StatorWorker, fleet_environment, flags_of

# An imitated GPU that computes some six prompts of 2,000 tokens in a second.
SLOW = {"engine": "mock", "speedup": 0.2, "threads": 1}
PLAN = {
    "planner_interval": "500ms",
    "planner_start_up": "1s",
    "planner_down_after": "3s",
    "planner_cooldown": "1s",
    "planner_predictor": "ewma",
}


@pytest.fixture
def folder(tmp_path_factory):
    """With a short name: paths of Unix sockets have at most 107 bytes."""
    return tmp_path_factory.mktemp("p")


class PlannedServer(stator_process.StatorServer):
    """`stator serve` with workers that a planner sizes."""

    health = StatorFrontend.health

    def planner(self, path="/planner"):
        status, _, body = self.request("GET", path)
        assert status == 200, body
        return json.loads(body)

    def decisions(self):
        return self.planner("/planner/decisions?limit=200")["decisions"]

    def ready(self):
        workers = self.health()["fleet"]["workers"]
        return sorted(w["name"] for w in workers if w["state"] == "ready")


class StatorPlanner(ChildServer):
    """`stator planner` for the fleet of `folder`."""

    name = "planner"
    planner = PlannedServer.planner

    def __init__(self, folder, **options):
        super().__init__()
        self.folder = folder
        self.options = {"planner_http": "127.0.0.1:0", **options}

    def command(self):
        return [stator_process.binary(), "planner", *flags_of(self.options)]

    def environment(self):
        return fleet_environment(self.folder)

    def find_port(self):
        found = re.search(r"shown at http://127\.0\.0\.1:(\d+)/planner", self.log())
        return int(found.group(1)) if found else 0

    def is_ready(self):
        self.port = self.port or self.find_port()
        return bool(self.port) and self.get_status("/planner") == 200


class Webhook:
    """Takes orders; answers what `answer` says: (status, object)."""

    def __init__(self):
        self.orders = []
        self.answer = (200, {"accepted": True})
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.orders.append({"auth": self.headers["Authorization"], **json.loads(body)})
                status, answer = outer.answer
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/orders"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()


def load(url, rate, seconds, folder, slo_ttft="20s"):
    """`stator bench` in the background."""
    command = [stator_process.binary(), "bench", "--url", url, "--api", "tokens", "--isl", 2000]
    command += ["--osl", 20, "--rate", rate, "--duration", f"{seconds}s", "--slo-ttft", slo_ttft]
    command += ["--json", folder / "load.json"]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=stator_process.child_environment(),
    )


def ended(process, folder):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    report = json.loads((folder / "load.json").read_text())
    return {o["outcome"]: o["count"] for o in report["outcomes"]}


def test_the_fleet_follows_the_load(folder):
    """Workers are added while requests come, and given up afterwards; no request fails."""
    server = PlannedServer(
        folder=folder, planner="act", planner_workers="aggregated=1-3", slo_ttft="1s", **SLOW,
        **PLAN,
    )
    with server:
        wait_until(lambda: server.ready() == ["worker-0"], "one worker is ready")
        process = load(server.base_url, 14, 12, folder)
        try:
            wait_until(lambda: len(server.ready()) >= 2, "workers are added", 30)
            outcomes = ended(process, folder)
        finally:
            process.kill()
        wait_until(lambda: len(server.ready()) == 1, "workers are given up again", 60)
        assert set(outcomes) == {"ok"}, outcomes

        decisions = server.decisions()
        kinds = [a["kind"] for d in reversed(decisions) for a in d["actions"]]
        assert kinds[0] == "start" and kinds[-1] == "drain", kinds
        busiest = max(decisions, key=lambda d: (d["demand"] or {}).get("offered", 0))
        assert busiest["demand"]["offered"] > 0 and busiest["isl"] == pytest.approx(2000, rel=0.1)
        metrics = read_metrics(server)
        assert metrics.sum("stator_planner_orders_total", kind="start") >= 1
        assert metrics.sum("stator_planner_orders_total", kind="drain") >= 1
        assert metrics.sum("stator_planner_orders_refused_total") == 0
        ready = {"role": "aggregated", "state": "ready"}
        wait_until(lambda: read_metrics(server).sum("stator_planner_workers", **ready) == 1,
                   "the planner has seen it")

        explain = subprocess.run(
            [stator_process.binary(), "planner", "explain", "--url", server.base_url, "--last", "3"],
            capture_output=True,
            text=True,
            timeout=30,
            env=stator_process.child_environment(),
        )
        assert explain.returncode == 0, explain.stderr
        assert explain.stdout.count("decision ") >= 3 and "forecast" in explain.stdout
        # Ends in order, though its planner is at work.
        server.terminate()
        assert server.wait() == 0


def test_advice_changes_nothing(folder):
    server = PlannedServer(
        folder=folder, planner="advise", workers=1, planner_workers="aggregated=2-3", **SLOW,
        **PLAN,
    )
    with server:
        wait_until(lambda: server.ready() == ["worker-0"], "one worker is ready")
        # Two are wanted whatever comes.
        wait_until(lambda: server.decisions() and server.decisions()[0]["roles"][0]["target"] == 2,
                   "two workers are advised")
        shown = server.planner()
        assert shown["acts"] is False and shown["actuator"] == "nobody"
        assert server.ready() == ["worker-0"]
        assert "status 400" not in server.log()
        for path, status in (
            ("/planner/decisions?limit=0", 400),
            ("/planner/decisions?limit=x", 400),
            ("/planner/decisions?last=3", 400),
            ("/planner/nothing", 404),
        ):
            assert server.request("GET", path)[0] == status, path
        assert server.request("POST", "/planner", b"{}")[0] == 405


def test_a_lost_worker_is_the_supervisors_business(folder):
    """It is started again under its name; the planner does not start another one for it."""
    server = PlannedServer(
        folder=folder, planner="act", planner_workers="aggregated=2-2", **SLOW, **PLAN
    )
    with server:
        wait_until(lambda: server.ready() == ["worker-0", "worker-1"], "both are ready")
        assert server.planner()["totals"]["started"] == 1
        old = re.search(r"has been started.*child=worker-1 pid=(\d+)", server.log()).group(1)
        os.kill(int(old), signal.SIGKILL)
        wait_until(lambda: len(re.findall(r"has been started.*child=worker-1 ", server.log())) == 2,
                   "the supervisor starts it again")
        wait_until(lambda: server.ready() == ["worker-0", "worker-1"], "both are ready again")
        ticks = server.planner()["totals"]["ticks"]
        wait_until(lambda: server.planner()["totals"]["ticks"] > ticks + 2, "decisions go on")
        assert server.planner()["totals"]["started"] == 1


def test_orders_by_webhook(folder):
    """A planner of its own: demand from the frontend over the event plane, loads from workers."""
    key = folder / "key"
    key.write_text("secret\n")
    with (
        Webhook() as webhook,
        StatorWorker(folder, "w0", **SLOW) as first,
        StatorFrontend(folder, threads=1) as frontend,
    ):
        frontend.wait_workers("w0")
        options = {**PLAN, "planner_workers": "aggregated=1-4", "slo_ttft": "1s"}
        with StatorPlanner(
            folder, planner_webhook=webhook.url, planner_webhook_key_file=key, **options
        ) as planner:
            process = load(frontend.base_url, 14, 15, folder)
            try:
                wait_until(lambda: webhook.orders, "an order goes out", 30)
                with StatorWorker(folder, "w1", **SLOW):
                    def seen():
                        last = planner.planner()["last"]
                        return last["roles"][0]["ready"] == 2

                    wait_until(seen, "the planner sees the second worker", 30)
                    outcomes = ended(process, folder)
            finally:
                process.kill()
            assert set(outcomes) == {"ok"}, outcomes
            order = webhook.orders[0]
            assert order["auth"] == "Bearer secret"
            assert order["kind"] == "start" and order["role"] == "aggregated"
            assert order["count"] >= 1 and order["because"] is not None
            # One planner at a time: another one stands by.
            with StatorPlanner(folder, **options) as second:
                wait_until(lambda: "another planner is active" in
                           (second.planner()["waits_for"] or ""), "the second stands by")
                planner.terminate()
                assert planner.wait() == 0
                wait_until(lambda: second.planner()["totals"]["ticks"] > 0, "the second takes over")
        assert first.pid


def test_refused_orders_are_told_and_not_repeated_blindly(folder):
    with (
        Webhook() as webhook,
        StatorWorker(folder, "w0", **SLOW),
        StatorFrontend(folder, threads=1) as frontend,
    ):
        webhook.answer = (200, {"accepted": False, "reason": "no quota left"})
        frontend.wait_workers("w0")
        with StatorPlanner(
            folder, planner_webhook=webhook.url, planner_workers="aggregated=2-4", **PLAN
        ) as planner:
            wait_until(lambda: planner.planner()["totals"]["refused"] >= 1, "it is refused")
            wait_until(lambda: planner.planner()["totals"]["ticks"] >= 12, "ticks go on", 30)
            # Doubling back-off from 30 s on: a tick every half a second would be a dozen orders.
            assert len(webhook.orders) <= 2, webhook.orders
            health = json.loads(planner.request("GET", "/health")[2])
            assert health["status"] == "degraded"
            assert any("have no effect" in concern for concern in health["concerns"]), health
            shown = planner.request("GET", "/planner/decisions?limit=200&format=text")[2].decode()
            assert "no quota left" in shown


def test_a_profile_is_measured_and_used(folder):
    """`stator bench --profile` finds what the imitated GPU's steps cost."""
    profile = folder / "profile.json"
    with stator_process.StatorServer(engine="mock", threads=1, folder=folder) as server:
        done = subprocess.run(
            [stator_process.binary(), "bench", "--profile", profile, "--url", server.base_url]
            + ["--api", "tokens"],
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            env=stator_process.child_environment(),
        )
        assert done.returncode == 0, done.stderr
    cost = json.loads(profile.read_text())["roles"]["aggregated"]
    # The preset's own: 16 µs a prompt token, 4.3 ms a step. A busy machine adds to them.
    assert 1.2e-5 < cost["prefill_token_s"] < 1e-4, cost
    assert 3e-3 < cost["base_s"] < 5e-2, cost
    server = PlannedServer(
        folder=folder, planner="advise", planner_profile=profile, **{**SLOW, **PLAN}
    )
    with server:
        wait_until(lambda: server.decisions(), "it decides")
        assert "nothing is known" not in json.dumps(server.decisions()[-1])


def refused(*flags, command="serve"):
    done = subprocess.run(
        [stator_process.binary(), command, *flags],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(),
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    return done.stderr


def test_wrong_settings_are_named(folder):
    mock = ["--engine", "mock", "--planner", "act"]
    assert "ROLE=MIN-MAX" in refused(*mock, "--planner-workers", "aggregated=3-1")
    assert "ROLE=MIN-MAX" in refused(*mock, "--planner-workers", "queen=1-2")
    assert "no worker is configured" in refused(*mock, "--planner-workers", "encode=1-2")
    assert "oracle" in refused(*mock, "--planner-predictor", "oracle")
    assert "off, advise" in refused("--engine", "mock", "--planner", "perhaps")
    assert "--count" in refused(*mock, "--workers", "1", "--count", "2")
    profile = folder / "profile.json"
    profile.write_text("{")
    assert "profile.json" in refused(*mock, "--planner-profile", str(profile))
    topology = folder / "two.yaml"
    topology.write_text("workers:\n  - name: a\n  - name: b\n")
    assert "Two kinds" in refused(*mock, "--topology", str(topology))
    assert "can't be started from here" in refused(
        "--engine", "vllm=http://127.0.0.1:1", "--planner", "act"
    )
    assert "--planner-webhook" in refused("--planner-webhook", "ftp://x", command="planner")
    assert "--planner-scrape" in refused("--planner-scrape", "nowhere", command="planner")
    assert "--allow-unauthenticated" in refused("--planner-http", "0.0.0.0:0", command="planner")
    assert "Is a planner running" in subprocess.run(
        [stator_process.binary(), "planner", "explain", "--url", "http://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=30,
        env=stator_process.child_environment(),
    ).stderr
