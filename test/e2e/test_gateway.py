"""`stator epp`: a real Envoy asks it where each request should go."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import stator_process
from conftest import wait_until
from gateway import Envoy, StatorEpp, envoy_config

CONFORMANCE = pathlib.Path(__file__).resolve().parents[1] / "epp-conformance"
PODS = 3
BENCH = {"groups": 24, "isl": 1024, "prefix": 960, "osl": 8, "concurrency": 2, "requests": 360}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Pod:
    """A mock worker and, as the HTTP server of its pod, a frontend that knows this worker alone."""

    def __init__(self, fleet, name, **options):
        [self.port, link] = free_ports(2)
        self.name = name
        self.endpoint = f"127.0.0.1:{self.port}"
        self.worker = fleet.mock_worker(
            name,
            label=f"http={self.endpoint}",
            listen=f"127.0.0.1:{link}",
            allow_unauthenticated="true",
            **{"threads": 1, "mock_blocks": 1400, "speedup": 4, **options},
        )
        self.front = _OnPort(fleet.folder, self.port, discover=f"127.0.0.1:{link}", threads=1,
                             router_replica_sync="false")
        fleet.started.append(self.front)
        self.front.start().wait_workers(name)


class _OnPort(stator_process.StatorFrontend):
    def __init__(self, folder, port, **options):
        super().__init__(folder, **options)
        self.fixed = port

    def command(self):
        command = super().command()
        command[command.index("--port") + 1] = str(self.fixed)
        return command


def start_epp(fleet, pods, **options):
    epp = StatorEpp(fleet.folder, **options)
    fleet.started.append(epp)
    epp.start()
    wait_until(
        lambda: sum(w["state"] == "ready" for w in epp.health()["fleet"]["workers"]) == pods
        and epp.health()["models"],
        "the picker knows the pods",
    )
    return epp


def start_envoy(fleet, epp, **options):
    envoy = Envoy(envoy_config(epp.grpc_address, **options))
    fleet.started.append(envoy)
    return envoy.start()


@pytest.fixture
def pods(fleet):
    return [Pod(fleet, f"p{i}") for i in range(PODS)]


def bench(url, seed, folder, **more):
    out = pathlib.Path(folder) / f"report-{seed}.json"
    options = {**BENCH, **more}
    command = [stator_process.binary(), "bench", "--url", url, "--api", "tokens"]
    command += ["--kind", "shared-prefix", "--seed", str(seed), "--json", str(out)]
    command += stator_process.flags_of(options)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert {o["outcome"]: o["count"] for o in report["outcomes"]} == {"ok": options["requests"]}
    return report


def complete(server, prompt, **more):
    body = {"model": more.pop("model", "mock"), "prompt": prompt, "max_tokens": 2, **more}
    return server.request("POST", "/v1/completions", body)


def test_requests_go_through_envoy_to_the_pod_with_the_prefix(fleet, pods, tmp_path):
    """As many tokens are found cached as with a frontend that routes by itself, within a point."""
    with stator_process.StatorFrontend(fleet.folder, threads=1) as direct:
        direct.wait_workers(*(p.name for p in pods))
        plain = bench(direct.base_url, 1, tmp_path)["cached_ratio"]
    epp = start_epp(fleet, PODS)
    envoy = start_envoy(fleet, epp, endpoints=[p.endpoint for p in pods])
    through = bench(envoy.base_url, 2, tmp_path)["cached_ratio"]
    assert through >= plain - 0.01, (through, plain)
    assert epp.metric('stator_gateway_picks_total{by="prompt"}') == BENCH["requests"]
    wait_until(lambda: epp.metric("stator_gateway_streams") == 0, "all streams have ended")
    [router] = json.loads(epp.request("GET", "/router")[2])["pools"]
    assert router["bookings"] == 0


@pytest.mark.parametrize("cluster", ["override_host", "original_dst"])
def test_both_ways_to_a_picked_pod(fleet, pods, cluster):
    """With a list that Envoy goes down, and with the one endpoint that ORIGINAL_DST takes."""
    lists = cluster == "override_host"
    epp = start_epp(fleet, PODS, gateway_fallbacks=2 if lists else 0)
    endpoints = [p.endpoint for p in pods] if lists else []
    envoy = start_envoy(fleet, epp, endpoints=endpoints)
    long = "the same long beginning of every prompt " * 40
    for i in range(6):
        status, _, body = complete(envoy, long + str(i))
        assert status == 200, body
    served = [p.front.request("GET", "/metrics")[2].decode().count("\n") for p in pods]
    assert served
    status, _, body = envoy.request("GET", "/v1/models")
    assert status == 200 and json.loads(body)["data"][0]["id"] == "mock"
    # What nobody serves is answered by the picker; what it can't read by a pod.
    assert complete(envoy, "x", model="nobody")[0] == 404
    assert envoy.request("POST", "/v1/completions", "{", {"content-type": "application/json"})[0] == 400


def test_a_killed_pod_is_gone_around(fleet, pods):
    epp = start_epp(fleet, PODS)
    envoy = start_envoy(fleet, epp, endpoints=[p.endpoint for p in pods])
    long = "a prefix that one of the pods has " * 60
    for i in range(4):
        assert complete(envoy, long + str(i))[0] == 200
    # The HTTP server of every pod but one goes; their workers still say that they are ready.
    for pod in pods[:-1]:
        pod.front.kill()
    for i in range(12):
        status, _, body = complete(envoy, f"{i} " + long)
        assert status == 200, body
    # Now the workers go, too, and are no longer picked at all.
    for pod in pods[:-1]:
        pod.worker.kill()
    wait_until(
        lambda: sum(w["state"] == "ready" for w in epp.health()["fleet"]["workers"]) == 1,
        "the picker knows that two are gone",
    )
    assert complete(envoy, long)[0] == 200
    pods[-1].worker.kill()
    wait_until(lambda: complete(envoy, long)[0] == 503, "there is no endpoint")


def conformance(epp, pods, *more):
    options = ["--epp", epp.grpc_address, "--model", "mock", "--path", "/v1/completions"]
    options += ["--endpoints", ",".join(p.endpoint for p in pods), *more]
    return subprocess.run(
        [sys.executable, str(CONFORMANCE / "epp_conformance.py"), *options],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_the_picker_passes_its_conformance_tests(fleet, pods, tmp_path):
    epp = start_epp(fleet, PODS, max_body_size="8M", gateway_drain="3s")
    report, page = tmp_path / "report.json", tmp_path / "report.md"
    done = conformance(
        epp,
        pods,
        *("--max-body", str(8 << 20), "--drain-pid", str(epp.pid)),
        *("--json", str(report), "--markdown", str(page)),
    )
    cases = json.loads(report.read_text())["cases"]
    assert {c["case"]: c.get("note") for c in cases if c["outcome"] != "passed"} == {}, done.stdout
    assert done.returncode == 0
    assert "| drain | SHOULD | passed |" in page.read_text()
    assert epp.wait() == 0
