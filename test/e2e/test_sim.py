"""`stator sim` as a process, and the short form of its benchmark: real and simulated fleets agree."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import stator_process

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "examples" / "sim"

SMALL = """
name: small
fleet: {workers: 2, preset: constant-10ms, blocks: 1000}
workload: {kind: shared-prefix, rate: 20, requests: 60, isl: 200, prefix: 160, groups: 4, osl: 20}
slo: {ttft: 100ms}
"""


def sim(*args, timeout=120, env=None):
    return subprocess.run(
        [stator_process.binary(), "sim", *(str(a) for a in args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(env),
    )


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_table_json_and_page(small, tmp_path):
    page = tmp_path / "page.html"
    table = sim(small, "--html", page)
    assert table.returncode == 0, table.stderr
    assert "TTFT" in table.stdout and "times real time" in table.stdout
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>") and "<svg" in text
    assert "http://" not in text.replace("http://www.w3.org", "")  # self-contained
    done = sim(small, "--json")
    report = json.loads(done.stdout)
    assert report["requests"] == 60
    assert {o["outcome"]: o["count"] for o in report["outcomes"]}["ok"] == 60
    # 15 of 16 requests of a group meet 160 of its 200 tokens, where one worker has them.
    assert 0.3 < report["cached_ratio"] <= 0.8


def test_a_seed_gives_the_same_bytes(small):
    first, second, other = (sim(small, "--json", "--seed", n).stdout for n in (3, 3, 4))
    assert first and first == second
    assert first != other


def test_sweep_gives_a_line_for_each_combination(small):
    done = sim(
        small,
        *("--json", "--sweep", "fleet.workers=1,2"),
        *("--sweep", "router.policy=random,least-loaded"),
    )
    assert done.returncode == 0, done.stderr
    names = [json.loads(line)["name"] for line in done.stdout.splitlines()]
    assert len(names) == 4 and len(set(names)) == 4
    one = sim(small, "--json", "--jobs", 1, "--set", "fleet.workers=1")
    assert json.loads(one.stdout)["requests"] == 60


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_samples_run(sample):
    if "trace:" in sample.read_text() and not os.environ.get("STATOR_DATA"):
        pytest.skip("needs the public traces: set STATOR_DATA to their folder")
    env = {"STATOR_DATA": os.environ.get("STATOR_DATA", "")}
    done = sim(sample, "--json", "--set", "workload.requests=200", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"] == 200


@pytest.mark.parametrize(
    "text, says",
    [
        (SMALL.replace("isl: 200", "isl: 20000"), "A prompt of 20000 tokens"),
        (SMALL.replace("constant-10ms", "fast"), "there are constant-10ms, llama-3.1-8b-fp8-h100"),
        (SMALL.replace("workers: 2", "workers: -2"), ':3: workers in a group of the fleet is "-2"'),
        (SMALL.replace("rate: 20", "rote: 20"), ':4: there is no option "rote"'),
        (SMALL + "faults: worker=7:crash@1s\n", "worker 7; there are 2"),
        (SMALL + "  - [", ":6: This is no YAML"),
        (SMALL.replace("kind: shared-prefix", "trace: nowhere, kind: mooncake"), "nowhere"),
        ("", ":1: fleet is missing"),
    ],
    ids=["prompt", "preset", "range", "name", "fault", "syntax", "trace", "empty"],
)
def test_what_can_not_be_is_refused(tmp_path, text, says):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    done = sim(path)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "args, says",
    [
        ([], "one scenario file"),
        (["no-such-file.yaml"], "no-such-file.yaml"),
        (["--seed", "x", "s.yaml"], "--seed must be a whole number"),
        (["--sede", "1"], "--sede"),
    ],
)
def test_wrong_words(args, says):
    done = sim(*args)
    assert done.returncode == 2
    assert says in done.stderr


def test_ctrl_c_shows_what_was_simulated(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text(SMALL.replace("requests: 60", "requests: 100000000"))
    child = subprocess.Popen(
        [stator_process.binary(), "sim", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=stator_process.child_environment(),
    )
    try:
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 1
    assert "Stopped" in err
    report = json.loads(out)
    assert report["partial"] is True and report["requests"] > 0


def test_help_shows_examples():
    done = sim("--help")
    assert done.returncode == 0
    assert "--sweep" in done.stdout and "examples/sim/shared-prefix.yaml" in done.stdout


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the benchmark needs two cores")
@pytest.mark.skipif(
    not os.environ.get("STATOR_DATA"), reason="needs the public traces: set STATOR_DATA"
)
def test_real_processes_and_simulated_ones_agree(tmp_path):
    """Within 20 %; the whole benchmark holds them to 5 %."""
    out = tmp_path / "sim.json"
    command = [sys.executable, str(ROOT / "bench" / "sim" / "run.py"), "--quick"]
    done = subprocess.run(
        [*command, "--only", "agreement", "--output", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "STATOR_BUILD": str(pathlib.Path(stator_process.binary()).parents[2])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 3
    for row in rows:
        assert row["met"], row
