"""`stator serve --workers N` and --topology: one command, processes that are kept running."""

import concurrent.futures
import os
import pathlib
import random
import signal
import string
import threading

import pytest
import stator_process
from answers import echo_of, stream_completion
from conftest import read_metrics, wait_until

ECHO = {"engine": "echo", "echo_step_us": 1000, "threads": 1}


class SupervisedServer(stator_process.StatorServer):
    """A server that knows a fleet."""

    health = stator_process.StatorFrontend.health
    workers = stator_process.StatorFrontend.workers

    def wait_ready_workers(self, count, other_than=()):
        """Until `count` workers are ready whose incarnations are new; returns the incarnations."""

        def ready():
            all_ = self.health()["fleet"]["workers"]
            found = {w["incarnation"] for w in all_ if w["state"] == "ready"}
            return found if len(found) == count and not found & set(other_than) else None

        return wait_until(ready, f"{count} new workers are ready")


def workers_of(pid):
    """Its children but for those that decode images."""

    def is_worker(child):
        try:
            return b"\0worker\0" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            return False

    return [child for child in children(pid) if is_worker(child)]


def children(pid):
    """Processes whose parent is `pid`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            state, parent = stat.rsplit(")", 1)[1].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(entry))
    return found


def is_alive(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def serve(fleet):
    """Starts `stator serve`; what it leaves behind is ended with the test."""
    left = []

    def start(**options):
        server = SupervisedServer(folder=fleet.folder, **{**ECHO, **options})
        fleet.started.append(server)
        server.launch()
        server.wait_ready()
        left.append(server)
        return server

    yield start
    for server in left:
        for pid in children(server.pid):
            os.kill(pid, signal.SIGKILL)


class Clients:
    """Ask one after the other while the block lasts; then each answer must be exact."""

    def __init__(self, server, count=6, tokens=60):
        self.server = server
        self.tokens = tokens
        self.answers = []
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(count)
        self._futures = [self._pool.submit(self._ask, i) for i in range(count)]

    def _ask(self, number):
        rng = random.Random(number)
        while not self._stop.is_set():
            prompt = "".join(rng.choices(string.ascii_letters, k=40))
            answer = stream_completion(self.server, prompt, self.tokens)
            self.answers.append((prompt, answer))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for future in self._futures:
            future.result()
        self._pool.shutdown()
        if exc[0] is not None:
            return
        assert len(self.answers) > 20
        for prompt, answer in self.answers:
            assert answer.complete, str(answer)
            assert answer.text == echo_of(prompt, self.tokens)


def test_killed_worker_is_started_again_and_no_request_fails(serve):
    server = serve(workers=2)
    first = server.wait_ready_workers(2)
    for _ in range(2):
        with Clients(server):
            pids = workers_of(server.pid)
            assert len(pids) == 2
            os.kill(pids[0], signal.SIGKILL)
            wait_until(lambda p=pids: p[0] not in workers_of(server.pid), "it is gone")
            wait_until(lambda: len(workers_of(server.pid)) == 2, "another one is started")
            now = server.wait_ready_workers(2)
        assert len(now - first) == 1
        first = now


def test_rolling_restart_under_load_fails_no_request(serve):
    server = serve(workers=2)
    incarnations = server.wait_ready_workers(2)
    pids = set(workers_of(server.pid))
    with Clients(server):
        for done in range(1, 5):
            server.signal(signal.SIGUSR2)
            wait_until(
                lambda n=done: server.log().count("All workers have been restarted") == n,
                "they are restarted",
            )
            incarnations = server.wait_ready_workers(2, other_than=incarnations)
            now = set(workers_of(server.pid))
            assert len(now) == 2
            assert not now & pids
            pids = now
    assert read_metrics(server).sum("stator_pool_migrations_total") == 0


def test_sigterm_ends_everything_with_exit_0(serve, fleet):
    server = serve(workers=2)
    server.wait_ready_workers(2)
    pids = children(server.pid)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        started = threading.Event()
        answer = pool.submit(
            stream_completion, server, "abcdefg", 500, on_piece=lambda a: started.set() or True
        )
        assert started.wait(10)
        server.terminate()
        # What is in work may end.
        assert answer.result().complete, str(answer.result())
    assert server.wait() == 0
    assert not [pid for pid in pids if is_alive(pid)]
    assert not [p for p in (fleet.folder / "run" / "stator").iterdir() if p.is_dir()], (
        "its folder is gone"
    )


def test_killed_supervisor_leaves_no_orphans(serve):
    server = serve(workers=2)
    server.wait_ready_workers(2)
    pids = children(server.pid)
    assert len(pids) >= 2
    server.kill()
    wait_until(lambda: not [pid for pid in pids if is_alive(pid)], "the workers have ended too")


def test_worker_that_stops_answering_signals_is_ended_by_force(serve):
    server = serve(workers=1, grace="500ms")
    server.wait_ready_workers(1)
    (pid,) = workers_of(server.pid)
    os.kill(pid, signal.SIGSTOP)
    server.terminate()
    assert server.wait(20) == 0
    assert not is_alive(pid)


def test_topology_file(serve, tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text(
        """
workers:
  - name: small
    count: 2
    options:
      model: {name: small}
      engine: {kind: echo, max_running: 3}
  - name: big
    options:
      model: {name: big}
      engine: {kind: echo, max_running: 5}
"""
    )
    server = serve(topology=path)
    server.wait_ready_workers(3)
    limits = {
        name: (w["model"], w["ranks"][0]["running_limit"]) for name, w in server.workers().items()
    }
    assert limits == {"small-0": ("small", 3), "small-1": ("small", 3), "big-0": ("big", 5)}
    for model in ("small", "big"):
        wait_until(
            lambda m=model: m in {e["id"] for e in server.health()["models"]}, "it is served"
        )
        answer = stream_completion(server, "hello", 12, model=model)
        assert answer.complete, str(answer)
        assert answer.text == "hellohellohe"


def test_wrong_topology_file_is_exit_2(tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text("workers:\n  - name: a\n    options: {engine: {max_runing: 3}}\n")
    server = stator_process.StatorServer(folder=tmp_path, topology=path)
    with pytest.raises(stator_process.StartError, match="ended with code 2") as caught:
        server.start()
    assert "max_running" in str(caught.value)
    server.stop()
