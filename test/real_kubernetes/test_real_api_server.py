"""The Kubernetes client against a real kube-apiserver and etcd (no controllers, no nodes: what those
would write, the tests write). `./dev test kube` builds the programs and sets STATOR_KUBERNETES."""

import contextlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support")]

import stator_process  # noqa: E402

NAMESPACE = "prod"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
ADMIN, READER, NOBODY = "admin-token", "reader-token", "nobody-token"
READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}


def wait_until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def free_ports(count):
    with contextlib.ExitStack() as open_ones:
        sockets = [
            open_ones.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [s.getsockname()[1] for s in sockets]


class Cluster:
    """etcd and kube-apiserver as child processes."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = pathlib.Path(os.environ["STATOR_KUBERNETES"])
        self.etcd_port, self.etcd_peer, self.port = free_ports(3)
        self.certificates = folder / "certs"
        self.processes = {}
        (folder / "tokens.csv").write_text(
            f'{ADMIN},admin,1,"system:masters"\n{READER},reader,2\n{NOBODY},nobody,3\n'
        )
        key = folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)

    def launch(self, name, *command):
        log = open(self.folder / f"{name}.log", "a")  # noqa: SIM115
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def start_etcd(self):
        client, peer = (f"http://127.0.0.1:{p}" for p in (self.etcd_port, self.etcd_peer))
        self.launch(
            "etcd",
            self.programs / "etcd",
            *("--data-dir", self.folder / "etcd", "--unsafe-no-fsync", "--log-level", "error"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
        )

    def start_api(self):
        key = self.folder / "sa.key"
        self.launch(
            "api",
            self.programs / "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            *("--bind-address=127.0.0.1", f"--secure-port={self.port}"),
            *(f"--cert-dir={self.certificates}", f"--token-auth-file={self.folder}/tokens.csv"),
            *("--authorization-mode=RBAC", "--service-account-issuer=https://test"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            "--service-cluster-ip-range=10.0.0.0/24",
            *("--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"),
            "--profiling=false",
        )
        wait_until(lambda: self.call("GET", "/readyz")[0] == 200, "the API server is ready", 120)

    def stop(self, name):
        process = self.processes.pop(name, None)
        if process:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self):
        """The server has signed its certificate itself."""
        return self.certificates / "apiserver.crt"

    def call(self, method, path, body=None, content_type="application/json", token=ADMIN):
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": content_type},
        )
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                data = answer.read()
                status = answer.status
        except urllib.error.HTTPError as refusal:
            data, status = refusal.read(), refusal.code
        except OSError:
            return 0, None
        with contextlib.suppress(ValueError):
            return status, json.loads(data)
        return status, data

    def must(self, *arguments, **more):
        status, body = self.call(*arguments, **more)
        assert 200 <= status < 300, (status, body)
        return body

    def apply(self, path, name, body):
        """Made, or changed."""
        body["metadata"] = {"name": name, "namespace": NAMESPACE, **body.get("metadata", {})}
        status, answer = self.call("POST", path, body)
        if status == 409:
            held = self.must("GET", f"{path}/{name}")
            body["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"]
            return self.must("PUT", f"{path}/{name}", body)
        assert status == 201, (status, answer)
        return answer

    def put_slice(self, name, host, port, conditions):
        return self.apply(
            SLICES,
            name,
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"labels": {"kubernetes.io/service-name": "workers"}},
                "addressType": "IPv4",
                "ports": [{"name": "stator", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [host], "conditions": conditions}],
            },
        )


@pytest.fixture(scope="module")
def cluster():
    with tempfile.TemporaryDirectory(prefix="stator-kube-") as folder:
        c = Cluster(pathlib.Path(folder))
        try:
            c.start_etcd()
            c.start_api()
            c.must("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
            # The Role that docs/discovery.md names, and nothing beside it.
            rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
            rule = {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["get", "list", "watch"],
            }
            c.must("POST", rbac + "/roles", {"metadata": {"name": "find"}, "rules": [rule]})
            c.must(
                "POST",
                rbac + "/rolebindings",
                {
                    "metadata": {"name": "find"},
                    "roleRef": {
                        "apiGroup": "rbac.authorization.k8s.io",
                        "kind": "Role",
                        "name": "find",
                    },
                    "subjects": [
                        {
                            "kind": "User",
                            "name": "reader",
                            "apiGroup": "rbac.authorization.k8s.io",
                        }
                    ],
                },
            )
            yield c
        finally:
            c.stop("api")
            c.stop("etcd")


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="stator-fleet-") as name:
        yield pathlib.Path(name)


def token_file(folder, token):
    path = folder / "token"
    path.write_text(token + "\n")
    return path


def tool(cluster, folder, *words, token=ADMIN):
    program = pathlib.Path(os.environ["STATOR_BUILD"]) / "tools" / "kube_tool"
    return [str(program), cluster.url, str(token_file(folder, token)), str(cluster.ca), *words]


def run_tool(cluster, folder, *words, **more):
    done = subprocess.run(
        tool(cluster, folder, *words, **more), capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def worker(folder, name):
    w = stator_process.StatorWorker(
        folder, name, engine="echo", echo_step_us=1000, listen="127.0.0.1:0"
    )
    return w


def place_of(w):
    host, port = w.address().removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


def frontend(cluster, folder, token=READER):
    return stator_process.StatorFrontend(
        folder,
        threads=1,
        discover=f"kubernetes:{NAMESPACE}/workers",
        kube_api=cluster.url,
        kube_token_file=token_file(folder, token),
        kube_ca=cluster.ca,
    )


def test_workers_come_and_go(cluster, folder):
    with worker(folder, "w1") as one, worker(folder, "w2") as two:
        cluster.put_slice("one", *place_of(one), READY)
        with frontend(cluster, folder) as f:
            f.wait_workers("w1")
            cluster.put_slice("two", *place_of(two), READY)
            f.wait_workers("w1", "w2")
            cluster.put_slice("one", *place_of(one), LEAVING)
            wait_until(lambda: "w1" not in f.states(), "w1 is out")
            cluster.put_slice("one", *place_of(one), READY)
            f.wait_workers("w1", "w2")
            cluster.must("DELETE", f"{SLICES}/two")
            wait_until(lambda: "w2" not in f.states(), "w2 is out")
            # The API server goes, things change, it comes back.
            cluster.stop("api")
            wait_until(lambda: f.health()["status"] == "degraded", "it says so")
            assert f.states() == {"w1": "ready"}
            cluster.start_api()
            cluster.must("DELETE", f"{SLICES}/one")
            cluster.put_slice("two", *place_of(two), READY)
            wait_until(lambda: set(f.states()) == {"w2"}, "what has changed is seen")
            wait_until(lambda: f.health()["status"] == "ready", "all is well again")
            cluster.must("DELETE", f"{SLICES}/two")


def test_rights_that_are_missing_are_named(cluster, folder):
    with frontend(cluster, folder, token=NOBODY) as f:
        said = wait_until(
            lambda: "get, list and watch" in str(f.health()) and str(f.health()), "the reason"
        )
        assert "403" in said and SLICES in said
    with frontend(cluster, folder, token="unknown-token") as f:
        wait_until(lambda: "401" in str(f.health()), "the refusal")


def test_scale_and_deletion_cost(cluster, folder):
    labels = {"app": "decode"}
    pod = {"containers": [{"name": "c", "image": "none"}]}
    for kind, path in (("Deployment", "deployments"), ("StatefulSet", "statefulsets")):
        spec = {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        cluster.apply(
            f"/apis/apps/v1/namespaces/{NAMESPACE}/{path}",
            "decode",
            {"apiVersion": "apps/v1", "kind": kind, "spec": spec},
        )
        target = f"{NAMESPACE}/{kind.lower()}/decode"
        assert run_tool(cluster, folder, "scale", target) == "2 0 app=decode"
        assert run_tool(cluster, folder, "scale", target, "5") == "5 0 app=decode"
        assert run_tool(cluster, folder, "scale", target) == "5 0 app=decode"
        assert "403" in run_tool(cluster, folder, "scale", target, "1", token=READER)
    assert "404" in run_tool(cluster, folder, "scale", f"{NAMESPACE}/deployment/absent")
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    cluster.apply(pods, "p1", {"apiVersion": "v1", "kind": "Pod", "spec": pod})
    assert run_tool(cluster, folder, "cost", NAMESPACE, "p1", "-7") == "ok"
    annotations = cluster.must("GET", f"{pods}/p1")["metadata"]["annotations"]
    assert annotations["controller.kubernetes.io/pod-deletion-cost"] == "-7"


def test_one_leads_and_another_follows_when_it_is_gone(cluster, folder):
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/leader"

    def lead(name, seconds):
        return subprocess.Popen(
            tool(cluster, folder, "lead", NAMESPACE, "leader", name, str(seconds)),
            stdout=subprocess.PIPE,
            text=True,
        )

    def holder():
        status, body = cluster.call("GET", lease)
        return body["spec"].get("holderIdentity", "") if status == 200 else None

    one = lead("one", 600)
    wait_until(lambda: holder() == "one", "one leads")
    two = lead("two", 600)
    three = None
    try:
        time.sleep(8)
        assert holder() == "one"
        one.kill()
        begin = time.monotonic()
        wait_until(lambda: holder() == "two", "two leads")
        assert time.monotonic() - begin > 8, "not before the lease has run out"
        assert cluster.must("GET", lease)["spec"]["leaseTransitions"] == 1
        two.kill()
        three = lead("three", 25)
        wait_until(lambda: holder() == "three", "three leads")
        three.wait(60)
        assert holder() == "", "who leaves lets go"
    finally:
        for process in (one, two, three):
            if process:
                process.kill()
                process.wait()
