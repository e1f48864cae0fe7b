"""Fixtures: the real binary with the real model, once per module; the official OpenAI client in
front of it.

Nothing here skips. Without STATOR_BIN or STATOR_MODEL the run ends with an error at once.
"""

import pathlib
import signal
import sys
import tempfile
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import openai  # noqa: E402
import stator_process  # noqa: E402
from metrics_text import Metrics  # noqa: E402

POLL_SECONDS = 0.02


def pytest_configure(config):
    try:
        stator_process.binary()
        stator_process.model()
    except stator_process.StartError as e:
        raise pytest.UsageError(str(e)) from e


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of the log of every server it used."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for name, value in getattr(item, "funcargs", {}).items():
        if isinstance(value, stator_process.ChildProcess):
            report.sections.append((f"end of the log of {name}", value.log_tail()))
        if isinstance(value, Fleet):
            for child in value.started:
                report.sections.append((f"end of the log of {child.name}", child.log_tail()))


def wait_until(condition, what, seconds=20):
    """Polls until `condition()` is true; fails with `what` at the deadline. Returns the true
    value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)
    return value


def openai_client(server, key="unused", **options):
    options = {"max_retries": 0, "timeout": 60, **options}
    return openai.OpenAI(base_url=server.base_url + "/v1", api_key=key, **options)


def read_metrics(server):
    status, _, body = server.request("GET", "/metrics")
    assert status == 200
    return Metrics(body.decode())


# Small limits make them quick to reach; one engine thread because the machine may be busy.
REAL = {"engine_threads": 1, "threads": 1, "context": 8192, "max_sequence": 2048}


@pytest.fixture(scope="module")
def server():
    """The real model."""
    with stator_process.StatorServer(stator_process.model(), **REAL) as s:
        yield s


@pytest.fixture(scope="module")
def client(server):
    with openai_client(server) as c:
        yield c


@pytest.fixture(scope="module")
def model_id(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def echo():
    """The echo engine: for what is about HTTP and not about the model."""
    with stator_process.StatorServer(engine="echo", threads=1, served_model_name="echo") as s:
        yield s


@pytest.fixture
def start_server():
    """Starts servers with options of the test's own; all are ended with the test."""
    started = []

    def start(model_path=None, **options):
        s = stator_process.StatorServer(model_path, **options)
        started.append(s)
        return s.start()

    yield start
    for s in started:
        s.stop()


class Fleet:
    """Frontends and workers that meet in a folder of their own; all end with the test."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def frontend(self, **options):
        options = {"threads": 1, **options}
        return self._keep(stator_process.StatorFrontend(self.folder, **options)).start()

    def worker(self, name, model_path=None, **options):
        """Not started: tests start several at once."""
        return self._keep(
            stator_process.StatorWorker(self.folder, name, model_path=model_path, **options)
        )

    def echo_workers(self, *names, **options):
        """Started and ready. A millisecond a step: slow enough to be met in the middle."""
        options = {"engine": "echo", "echo_step_us": 1000, **options}
        workers = [self.worker(name, **options).launch() for name in names]
        for worker in workers:
            worker.wait_ready()
        return workers

    def mock_worker(self, name, **options):
        """Started and ready: an imitated engine with steps of 10 ms that ends at max_tokens."""
        options = {"mock_preset": "constant-10ms", "mock_mean_output": 0, **options}
        return self.worker(name, engine="mock", **options).start()

    def _keep(self, child):
        self.started.append(child)
        return child

    def stop(self):
        for child in self.started:
            if child.process is not None:
                child.signal(signal.SIGCONT)
                child.terminate()
        for child in self.started:
            child.stop()


def make_fleet():
    # Not pytest's tmp_path: its paths are too long for a Unix socket's address.
    with tempfile.TemporaryDirectory(prefix="stator-fleet-") as folder:
        fleet = Fleet(pathlib.Path(folder))
        try:
            yield fleet
        finally:
            fleet.stop()


@pytest.fixture
def fleet():
    yield from make_fleet()


@pytest.fixture(scope="module")
def shared_fleet():
    yield from make_fleet()
