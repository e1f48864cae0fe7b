"""A frontend that finds its workers from EndpointSlices of a (scripted) Kubernetes API server, which
goes wrong in every way there is; no request may fail for it."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import threading

import pytest
import stator_process
from answers import stream_completion
from conftest import wait_until
from fake_kube_api import FakeKubeApi

SOURCE = "kubernetes:default/workers"
READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
UNREADY = {"ready": False, "serving": False, "terminating": False}
QUICK = {"wait_for_worker": "10s"}


@pytest.fixture
def api():
    with FakeKubeApi() as server:
        yield server


def place_of(worker):
    host, port = worker.address().removeprefix("tcp://").rsplit(":", 1)
    return host.strip("[]"), int(port)


def put(api, worker, conditions=READY, **more):
    """A slice of its own for each worker: here they differ in their ports."""
    host, port = place_of(worker)
    more.setdefault("family", "IPv6" if ":" in host else "IPv4")
    api.put_slice(f"workers-{worker.name}", [(host, port, conditions)], **more)


def workers_of(fleet, *names, **options):
    return fleet.echo_workers(*names, **{"listen": "127.0.0.1:0", **options})


def frontend_of(fleet, api, source=SOURCE, **options):
    return fleet.frontend(discover=source, kube_api=api.url, **QUICK, **options)


class Load:
    """Requests, four at a time, until it ends; each must be whole and right."""

    def __init__(self, frontend):
        self.frontend = frontend
        self.stop = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(4)
        self.done = 0

    def _run(self, number):
        bad = []
        while not self.stop.is_set():
            answer = stream_completion(self.frontend, f"abc{number}", 40)
            if not answer.complete or answer.text != (f"abc{number}" * 40)[:40]:
                bad.append(str(answer))
            self.done += 1
        return bad

    def __enter__(self):
        self.futures = [self.pool.submit(self._run, i) for i in range(4)]
        return self

    def more(self, count=8):
        """Until so many requests more have ended."""
        goal = self.done + count
        wait_until(lambda: self.done >= goal, f"{count} more requests have ended")

    def __exit__(self, *exc):
        self.stop.set()
        bad = [b for f in self.futures for b in f.result()]
        self.pool.shutdown()
        assert not bad, bad[:3]


def test_workers_come_and_go_and_no_request_fails(fleet, api):
    one, two, three = workers_of(fleet, "w1", "w2", "w3")
    put(api, one)
    frontend = frontend_of(fleet, api).wait_workers("w1")
    with Load(frontend) as load:
        load.more()
        put(api, two)
        frontend.wait_workers("w1", "w2")
        load.more()
        # It is told to leave: what it has it finishes, new requests go to the other.
        put(api, one, LEAVING)
        wait_until(lambda: "w1" not in frontend.states(), "w1 is out")
        one.stop()
        api.delete_slice("workers-w1")
        put(api, three, UNREADY)
        load.more()
        assert set(frontend.states()) == {"w2"}
        put(api, three)
        frontend.wait_workers("w2", "w3")
        put(api, two, UNREADY)
        wait_until(lambda: "w2" not in frontend.states(), "w2 is out")
        load.more()
    assert frontend.health()["status"] == "ready"
    assert api.count("watch=1") == 1, "one watch has told it all"


def faults_of(api):
    def cut():
        api.cut()

    def expire_in_stream():
        api.faults.expire_in_stream = True
        api.store.expire()

    def expire_by_status():
        api.faults.expire_in_stream = False
        api.store.expire()
        api.cut()

    def garbage():
        api.faults.garbage = 1

    def busy():
        api.faults.answers.extend([(429, {"Retry-After": "1"}, b"{}")] * 2)
        api.cut()

    def broken():
        api.faults.answers.extend([(500, {}, b"\xff\xfe"), (200, {}, b"no JSON"), (403, {}, b"{}")])
        api.store.expire()
        api.cut()

    def split():
        api.faults.piece = 1

    def gone():
        api.stop()
        api.start()

    return {f.__name__: f for f in locals().values() if callable(f)}


@pytest.mark.parametrize(
    "fault",
    [
        "cut",
        "expire_in_stream",
        "expire_by_status",
        "garbage",
        "busy",
        "broken",
        "split",
        "gone",
    ],
)
def test_after_each_fault_changes_are_seen_and_no_request_fails(fleet, api, fault):
    one, two = workers_of(fleet, "w1", "w2")
    put(api, one)
    frontend = frontend_of(fleet, api).wait_workers("w1")
    with Load(frontend) as load:
        load.more(4)
        faults_of(api)[fault]()
        put(api, two)
        frontend.wait_workers("w1", "w2")
        api.delete_slice("workers-w1")
        wait_until(lambda: "w1" not in frontend.states(), "w1 is out")
        load.more(4)
    wait_until(lambda: frontend.health()["status"] == "ready", "all is well again")


def test_what_vanished_while_nobody_looked_is_gone(fleet, api):
    one, two = workers_of(fleet, "w1", "w2")
    put(api, one)
    put(api, two)
    frontend = frontend_of(fleet, api).wait_workers("w1", "w2")
    api.stop()
    api.delete_slice("workers-w1")
    api.store.expire()
    api.start()
    wait_until(lambda: set(frontend.states()) == {"w2"}, "w1 is out")


def test_without_the_api_server_the_last_fleet_serves_and_says_so(fleet, api):
    (one,) = workers_of(fleet, "w1")
    put(api, one)
    frontend = frontend_of(fleet, api).wait_workers("w1")
    api.stop()
    wait_until(lambda: frontend.health()["status"] == "degraded", "it says that it is degraded")
    said = str(frontend.health())
    assert "workers known last" in said and SOURCE in said
    with Load(frontend) as load:
        load.more()
    assert frontend.states() == {"w1": "ready"}
    assert frontend.log().count("A discovery source fails") == 1
    api.start()
    wait_until(lambda: frontend.health()["status"] == "ready", "all is well again")


def test_an_expired_token_is_replaced_by_the_one_in_the_file(fleet, tmp_path):
    token = tmp_path / "token"
    token.write_text("token-one\n")
    with FakeKubeApi(tokens=["token-one"]) as api:
        one, two = workers_of(fleet, "w1", "w2")
        put(api, one)
        frontend = frontend_of(fleet, api, kube_token_file=token).wait_workers("w1")
        api.tokens = {"token-two"}
        api.cut()
        wait_until(lambda: "401" in str(frontend.health()), "the refusal is seen")
        token.write_text("token-two\n")
        put(api, two)
        frontend.wait_workers("w1", "w2")
        wait_until(lambda: frontend.health()["status"] == "ready", "all is well again")
    assert "token-" not in frontend.log()


def certificate(folder, name):
    """A self-signed one for 127.0.0.1."""
    key, crt = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", crt),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return crt, key


def test_a_server_of_another_authority_is_not_believed(fleet, tmp_path):
    right, wrong = certificate(tmp_path, "right"), certificate(tmp_path, "wrong")
    authorities = tmp_path / "ca.crt"
    authorities.write_bytes(wrong[0].read_bytes())
    with FakeKubeApi(tls=right) as api:
        (one,) = workers_of(fleet, "w1")
        put(api, one)
        frontend = frontend_of(fleet, api, kube_ca=authorities)
        wait_until(lambda: "certificate" in str(frontend.health()), "the reason is told")
        assert not frontend.workers()
        authorities.write_bytes(right[0].read_bytes())
        frontend.wait_workers("w1")


def test_thousands_of_slices_come_in_pages(fleet, api):
    (one,) = workers_of(fleet, "w1")
    for i in range(2500):
        api.put_slice(f"other-{i:04}", [("10.0.0.1", 7000, UNREADY)])
    put(api, one)
    frontend = frontend_of(fleet, api).wait_workers("w1")
    assert api.count("continue=") >= 20
    assert frontend.health()["status"] == "ready"


def test_objects_without_fields_and_foreign_slices_are_passed_over(fleet, api):
    one, other = workers_of(fleet, "w1", "w2")
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    labels = {"kubernetes.io/service-name": "workers"}
    for i, odd in enumerate([{}, {"endpoints": None}, {"endpoints": [{}, 7, {"addresses": [9]}]}]):
        api.store.put(slices, {"metadata": {"name": f"odd-{i}", "labels": labels}, **odd})
    put(api, other, service="another")
    put(api, one)
    frontend = frontend_of(fleet, api, source=SOURCE + "?port=stator").wait_workers("w1")
    wait_until(lambda: "?port=" in str(frontend.health()), "a slice without a port is named")
    api.store.delete(slices, "odd-2")
    wait_until(lambda: frontend.health()["status"] == "ready", "all is well again")


def test_ipv6_endpoints_and_a_label_selector(fleet, api):
    one, other = workers_of(fleet, "w1", "w2", listen="[::1]:0")
    put(api, one, service="a")
    put(api, other, service="b")
    frontend = frontend_of(
        fleet, api, source="kubernetes:default/kubernetes.io/service-name in (a & c)&!absent"
    )
    frontend.wait_workers("w1")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("kubernetes:workers", "'/'"),
        ("kubernetes:Prod/workers", "namespace"),
        ("kubernetes:prod/", "selector"),
        ("kubernetes:prod/workers?port=0", "65535"),
        ("kubernetes:prod/workers?sort=0", "port="),
    ],
)
def test_sources_that_are_none_are_refused_at_start(fleet, source, said):
    with pytest.raises(stator_process.StartError) as refused:
        fleet.frontend(discover=source)
    assert said in str(refused.value)


def test_the_pods_own_account_is_used_and_its_absence_said(fleet):
    with pytest.raises(stator_process.StartError) as refused:
        fleet.frontend(discover=SOURCE)
    assert "--kube-api" in str(refused.value)


def test_its_memory_stays_bounded_while_slices_churn(fleet, api):
    (one,) = workers_of(fleet, "w1")
    put(api, one)
    frontend = frontend_of(fleet, api).wait_workers("w1")
    endpoints = [(f"10.1.0.{i}", 7000, UNREADY) for i in range(100)]
    before = stator_process.resident_mib(frontend.pid)
    for _ in range(500):
        api.put_slice("churning", endpoints)
    api.delete_slice("workers-w1")
    wait_until(lambda: not frontend.states(), "all events have been read")
    assert stator_process.resident_mib(frontend.pid) < before + 64


def check_client(url, token, namespace):
    script = pathlib.Path(__file__).parents[1] / "support" / "kube_client_check.mjs"
    done = subprocess.run(
        ["node", script, url, token, namespace],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(
    not os.environ.get("STATOR_KUBERNETES_CLIENT"),
    reason="needs npm's Kubernetes client: ./dev test sets STATOR_KUBERNETES_CLIENT where npm is "
    "installed",
)
def test_the_scripted_server_is_what_an_independent_client_expects():
    with FakeKubeApi(tokens=["t"]) as server:
        for i in range(5):
            server.put_slice(f"s{i}", [("10.0.0.1", 7000, READY)])
        seen = check_client(server.url, "t", "default")
    assert seen["names"] == [f"s{i}" for i in range(5)]
    assert seen["events"] == [
        ["ADDED", "made-here", True],
        ["MODIFIED", "made-here", False],
        ["DELETED", "made-here", False],
    ]
    assert (seen["conflict"], seen["twice"], seen["missing"]) == (409, 409, 404)
    assert seen["lease"] == "node"
