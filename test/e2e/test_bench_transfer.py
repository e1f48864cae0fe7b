"""`stator bench transfer` as a process: alone, and one that listens with one that connects."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
import stator_process
from conftest import wait_until
from test_links import Certificates

SECRET = "s" * 32


def command(*args):
    return [stator_process.binary(), "bench", "transfer", *(str(a) for a in args)]


def bench(*args, timeout=60, env=None):
    return subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(env),
    )


def report_of(*args, **options):
    done = bench("--json", "-", *args, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def measured(report):
    return [(row["method"], row["bytes"]) for row in report["rows"]]


def secret_file(folder, text=SECRET):
    path = folder / f"{text[0]}.txt"
    path.write_text(text)
    path.chmod(0o600)
    return path


class Listening(stator_process.ChildProcess):
    """The side that makes handoffs."""

    name = "stator bench transfer --listen"

    def __init__(self, *args):
        super().__init__()
        self._args = args

    def command(self):
        return command("--listen", "127.0.0.1:0", *self._args)

    def is_ready(self):
        return "Ctrl-C ends this" in self.log()

    def address(self):
        return re.search(r"--connect (\S+)", self.log())[1]


@pytest.fixture
def listening(tmp_path):
    side = Listening("--link-secret-file", secret_file(tmp_path))
    side.start()
    yield side
    side.kill()


def test_alone_every_way_is_measured_or_said_to_be_off():
    report = report_of("--bytes", "64K,1M", "--handoffs", 5)
    rows = report["rows"]
    assert report["complete"]
    for size in (65_536, 1 << 20):
        for method in ("memcpy", "shm", "tcp"):
            assert (method, size) in measured(report)
        assert ("nixl", size) in measured(report) or report["off"]["nixl"]
    for row in rows:
        assert row["gb_per_second_read"] > 0 and row["claim_p50_ms"] > 0
        if row["method"] == "memcpy":
            continue
        assert row["handoffs"] == 5
        assert 0 < row["claim_p50_ms"] <= row["arrive_p50_ms"] <= row["arrive_p99_ms"]
        assert row["cpu_seconds_consumer"] >= 0 and row["cpu_seconds_producer"] >= 0
        assert row["resident_bytes_producer"] > 1 << 20
        assert (row["gb_per_second"] is None) == (row["method"] == "shm")


def test_the_table_is_for_people(tmp_path):
    path = tmp_path / "out.json"
    done = bench("--bytes", "100000", "--handoffs", 2, "--transfer", "shm", "--json", path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("100,000 bytes", "memcpy", "shm", "mapped", "p99", "CPU"):
        assert word in done.stdout
    assert "tcp" not in done.stdout
    assert measured(json.loads(path.read_text())) == [("memcpy", 100_000), ("shm", 100_000)]


def test_what_workers_of_this_machine_are_told_does_not_matter():
    env = {"STATOR_LISTEN": "127.0.0.1:1", "STATOR_TRANSFER_LISTEN": "127.0.0.1:1"}
    report = report_of("--bytes", "1K", "--handoffs", 1, "--transfer", "tcp", env=env)
    assert ("tcp", 1024) in measured(report)


def test_two_sides_with_a_secret(listening, tmp_path):
    arguments = ["--connect", listening.address(), "--bytes", "1M", "--handoffs", 3]
    secret = ["--link-secret-file", secret_file(tmp_path)]
    for _ in range(2):  # it goes on listening
        report = report_of(*arguments, *secret)
        assert ("shm", 1 << 20) in measured(report)
        assert ("tcp", 1 << 20) in measured(report)
        assert listening.address() in report["from"]
    for wrong in ([], ["--link-secret-file", secret_file(tmp_path, "w" * 32)]):
        done = bench(*arguments, *wrong)
        assert done.returncode == 1
        assert "secret" in done.stderr and listening.address() in done.stderr
    listening.signal(signal.SIGTERM)
    assert listening.process.wait(timeout=20) == 0


def test_two_sides_with_certificates(tmp_path):
    certificates = Certificates(tmp_path)
    certificate, key = certificates.issue("both")
    own = ["--link-certificate", certificate, "--link-key", key]
    own += ["--link-authorities", certificates.authority]
    side = Listening(*own)
    side.start()
    try:
        arguments = ["--connect", side.address(), "--bytes", "1M", "--handoffs", 2]
        assert ("tcp", 1 << 20) in measured(report_of(*arguments, *own))
        assert bench(*arguments).returncode == 1
    finally:
        side.kill()


def test_a_side_that_dies_ends_the_other_with_what_was_measured(listening, tmp_path):
    arguments = ["--connect", listening.address(), "--transfer", "tcp", "--json", "-"]
    arguments += ["--bytes", "1M", "--handoffs", 100_000]
    arguments += ["--link-secret-file", secret_file(tmp_path)]
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=stator_process.child_environment(),
    ) as process:
        wait_until(lambda: cpu_ticks(listening.pid) > 5, "handoffs are made")
        listening.kill()
        out, err = process.communicate(timeout=40)
    assert process.returncode == 1
    report = json.loads(out)
    assert not report["complete"]
    assert "broken off" in err


def test_nobody_there_is_exit_1():
    done = bench("--connect", "127.0.0.1:9", "--handoffs", 1)
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr


def test_a_worker_is_not_taken_for_the_other_side(fleet):
    worker = fleet.worker("w1", engine="echo", listen="127.0.0.1:0")
    worker.start()
    done = bench("--connect", worker.address())
    assert done.returncode == 1
    assert "stator bench transfer --listen" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--listen", "0.0.0.0:0"], "--link-secret-file"),
        (["--listen", "nowhere"], "--listen"),
        (["--bytes", "2G"], "--transfer-size"),
        (["--bytes", "many"], "--bytes"),
        (["--transfer", "smoke"], "--transfer"),
        (["--listen", "127.0.0.1:0", "--handoffs", "3"], "the side that connects"),
        (["--link-secret-file", "/absent", "--connect", "127.0.0.1:9"], "/absent"),
    ],
)
def test_wrong_words_are_exit_2(arguments, named):
    done = bench(*arguments, timeout=20)
    assert done.returncode == 2, done.stdout + done.stderr
    assert named in done.stderr
    assert done.stdout == ""


def cpu_ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
            found.append(int(entry))
    return found


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_shows_what_there_is_and_no_process_stays(end):
    with subprocess.Popen(
        command("--bytes", "64K", "--handoffs", 100_000, "--transfer", "tcp", "--json", "-"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=stator_process.child_environment(),
    ) as process:
        wait_until(lambda: children_of(process.pid), "the second process is there")
        (other,) = children_of(process.pid)
        wait_until(lambda: cpu_ticks(other) > 5, "handoffs are made")
        process.send_signal(end)
        began = time.monotonic()
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 10
    if end == signal.SIGINT:
        assert process.returncode == 1
        assert "Stopped" in err
        report = json.loads(out)
        assert not report["complete"]
        assert ("memcpy", 65_536) in measured(report)
    wait_until(lambda: not os.path.exists(f"/proc/{other}"), "the second process is gone")


def test_help_teaches():
    done = bench("--help")
    assert done.returncode == 0
    for word in ("--bytes", "--handoffs", "--listen", "--connect", "--link-secret-file", "GB/s"):
        assert word in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
