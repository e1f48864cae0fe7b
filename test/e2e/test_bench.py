"""The benchmark of the planes starts its fleet with the classes of these tests: that it still runs."""

import os
import pathlib
import subprocess
import sys

import pytest
import stator_process

RUN = pathlib.Path(__file__).resolve().parents[2] / "bench" / "planes" / "run.py"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the benchmark needs two cores")
def test_planes_quick_failover():
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", "--only", "failover"],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "STATOR_BUILD": str(pathlib.Path(stator_process.binary()).parents[2])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from kill -9 to the next token, max" in done.stdout
