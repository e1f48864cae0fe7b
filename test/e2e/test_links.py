"""Links between processes: who may have one, and what strangers can do to one."""

import contextlib
import random
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import stator_process
from answers import stream_completion
from conftest import wait_until

TCP = {"listen": "127.0.0.1:0"}


def assert_serves(frontend):
    answer = stream_completion(frontend, "hello", 12)
    assert answer.complete, str(answer)
    assert answer.text == "hellohellohe"


def secret_file(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def secrets_(fleet):
    return (
        secret_file(fleet.folder, "right.txt", "a" * 32),
        secret_file(fleet.folder, "wrong.txt", "b" * 32),
    )


def test_wrong_secret_is_refused_and_others_are_unaffected(fleet, secrets_):
    right, wrong = secrets_
    frontend = fleet.frontend(link_secret_file=right)
    fleet.echo_workers("good", link_secret_file=right)
    (bad,) = fleet.echo_workers("bad", link_secret_file=wrong)
    (open_one,) = fleet.echo_workers("open")
    frontend.wait_workers("good")
    for worker in (bad, open_one):
        lines = wait_until(
            lambda w=worker: [
                line
                for line in frontend.log().splitlines() + w.log().splitlines()
                if w.address() in line or "refused" in line
                if "secret" in line
            ],
            f"a reason is logged for {worker.name}",
        )
        assert "aaaa" not in "".join(lines) and "bbbb" not in "".join(lines)
    assert frontend.states() == {"good": "ready"}
    for _ in range(5):
        assert_serves(frontend)


def refusal(frontend):
    """Why its one worker is not to be had."""
    return wait_until(
        lambda: [
            w["reason"]
            # A moment after the port, the fleet is there.
            for w in frontend.health().get("fleet", {"workers": []})["workers"]
            if w["reason"]
        ],
        "the worker is not to be had",
    )[0]


def test_frontend_without_the_secret_gets_nothing(fleet, secrets_):
    right, wrong = secrets_
    (worker,) = fleet.echo_workers("w1", link_secret_file=right)
    for options in ({}, {"link_secret_file": wrong}):
        frontend = fleet.frontend(wait_for_worker="200ms", **options)
        assert "secret" in refusal(frontend)
        assert frontend.request("GET", "/health")[0] == 503
        assert stream_completion(frontend, "abc", 3).status in (404, 503)
    assert_serves(fleet.frontend(link_secret_file=right).wait_workers("w1"))
    assert worker.process.poll() is None


def test_secret_is_read_again_on_sighup(fleet, secrets_):
    path, _ = secrets_
    frontend = fleet.frontend(link_secret_file=path)
    (first,) = fleet.echo_workers("w1", link_secret_file=path)
    frontend.wait_workers("w1")
    path.write_text("c" * 32)
    for process in (frontend, first):
        process.signal(signal.SIGHUP)
        wait_until(lambda p=process: "were read again" in p.log(), "the secret was read again")
    # The old link stays; new ones take the new secret.
    fleet.echo_workers("w2", link_secret_file=path)
    frontend.wait_workers("w1", "w2")
    first.kill()
    first.start()
    frontend.wait_workers("w1", "w2")
    assert_serves(frontend)


@pytest.mark.parametrize(
    ("text", "mode", "named"),
    [("short", 0o600, "16"), ("a" * 32, 0o644, "600"), (None, 0, "absent.txt")],
)
def test_unusable_secret_file_is_exit_2(fleet, text, mode, named):
    path = fleet.folder / "absent.txt"
    if text is not None:
        path = fleet.folder / "secret.txt"
        path.write_text(text)
        path.chmod(mode)
    worker = fleet.worker("w1", engine="echo", link_secret_file=path)
    with pytest.raises(stator_process.StartError, match="ended with code 2") as caught:
        worker.start()
    assert named in str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_open_listening_without_secret_is_exit_2(fleet, listen):
    worker = fleet.worker("w1", engine="echo", listen=listen)
    with pytest.raises(stator_process.StartError, match="ended with code 2") as caught:
        worker.start()
    assert "--link-secret-file" in str(caught.value)


class Certificates:
    """An authority and what it signed, made by the openssl program."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = folder / "ca.pem"
        self._authority_key = folder / "ca.key"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=test authority"),
            *("-keyout", self._authority_key, "-out", self.authority),
        )

    def issue(self, name):
        """Paths of a certificate for 127.0.0.1 and of its key."""
        key, request = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        certificate, more = self.folder / f"{name}.pem", self.folder / f"{name}.ext"
        more.write_text("subjectAltName=IP:127.0.0.1\n")
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
        )
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.authority),
            *("-CAkey", self._authority_key, "-CAcreateserial", "-days", "2"),
            *("-extfile", more, "-out", certificate),
        )
        key.chmod(0o600)
        return certificate, key

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_on_links(fleet, certificates, tmp_path_factory):
    certificate, key = certificates.issue("worker")
    fleet.echo_workers("w1", **TCP, link_certificate=certificate, link_key=key)
    frontend = fleet.frontend(link_authorities=certificates.authority)
    frontend.wait_workers("w1")
    assert_serves(frontend)

    stranger = Certificates(tmp_path_factory.mktemp("stranger"))
    for options in ({}, {"link_authorities": stranger.authority}):
        other = fleet.frontend(wait_for_worker="200ms", **options)
        assert refusal(other)
        assert other.states() == {}
    assert_serves(frontend)


def test_mutual_tls(fleet, certificates):
    certificate, key = certificates.issue("worker")
    fleet.echo_workers(
        "w1",
        **TCP,
        link_certificate=certificate,
        link_key=key,
        link_authorities=certificates.authority,
    )
    without = fleet.frontend(link_authorities=certificates.authority)
    own, own_key = certificates.issue("frontend")
    frontend = fleet.frontend(
        link_authorities=certificates.authority, link_certificate=own, link_key=own_key
    )
    frontend.wait_workers("w1")
    assert_serves(frontend)
    assert refusal(without)
    assert without.states().get("w1") != "ready"
    assert without.request("GET", "/health")[0] == 503


def host_port(address):
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    return host.strip("[]"), int(port)


def recorded_hello(fleet):
    """The first bytes of a real frontend, as a listener in the place of a worker gets them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        frontend = fleet.frontend(discover=address)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            data = b""
            while len(data) < 80:
                data += connection.recv(4096)
        frontend.stop()
        fleet.started.remove(frontend)
        return data


def is_refused(address, data, seconds=15):
    """Sends it and waits until the worker ends the connection."""
    with socket.create_connection(host_port(address), timeout=seconds) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(data)
            while s.recv(65536):
                pass
        return True


def test_strangers_on_a_worker_are_refused_with_a_logged_reason(fleet):
    """Garbage, half frames and wrong frames, while a real frontend is served."""
    (worker,) = fleet.echo_workers("w1", **TCP)
    hello = recorded_hello(fleet)
    assert hello.startswith(b"STATOR\r\n")
    frontend = fleet.frontend().wait_workers("w1")
    rng = random.Random(4)
    noise = rng.randbytes(100_000)
    flipped = bytearray(hello)
    flipped[len(hello) // 2] ^= 1
    longest = hello[:8] + b"\0\0\0\0" + b"\xff\xff" + b"\x01\x01\0\0\0\0" + noise
    garbage = {
        "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "noise": noise,
        "noise behind the preface": hello[:8] + noise,
        "a damaged hello": bytes(flipped),
        "an oversize length": longest,
        "noise behind a hello": hello + noise,
        "two hellos": hello + hello[8:],
    }
    for what, data in garbage.items():
        before = len(worker.log())
        assert is_refused(worker.address(), data), what
        line = wait_until(
            lambda b=before: re.search(r'(refused|has ended).*why="[^"]+"', worker.log()[b:]),
            f"a reason is logged for {what}",
        )
        assert line
        assert_serves(frontend)
    # Half of a hello, and nothing more: ended in time, and nobody else waits for it.
    halves = [socket.create_connection(host_port(worker.address())) for _ in range(50)]
    try:
        for s in halves:
            s.settimeout(30)
            s.sendall(hello[: len(hello) // 2])
        assert_serves(frontend)
        for s in halves:
            with contextlib.suppress(ConnectionResetError):
                while s.recv(4096):
                    pass
    finally:
        for s in halves:
            s.close()
    assert_serves(frontend)
    assert frontend.states() == {"w1": "ready"}
    wait_until(lambda: stator_process.descriptors(worker.pid) < 40, "descriptors are closed")


def test_garbage_from_an_address_that_is_no_worker(fleet):
    """Something else listens where discovery said a worker is."""
    said = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", random.Random(5).randbytes(50_000)]
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        over = threading.Event()

        def talk():
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection, contextlib.suppress(OSError):
                    connection.sendall(said[len(accepted) % len(said)])
                    accepted.append(True)
                    time.sleep(0.02)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            (worker,) = fleet.echo_workers("w1", **TCP)
            frontend = fleet.frontend(
                discover=[worker.address(), "127.0.0.1:%d" % listener.getsockname()[1]]
            )
            frontend.wait_workers("w1")
            wait_until(lambda: len(accepted) >= 6, "it was dialled again and again")
            for _ in range(5):
                assert_serves(frontend)
            (other,) = [w for w in frontend.health()["fleet"]["workers"] if "name" not in w]
            assert other["reason"]
            # With back-off: not in a tight loop.
            assert len(accepted) < 40
        finally:
            over.set()
            thread.join()
