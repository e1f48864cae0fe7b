"""Four real vLLM servers, started together once: two that do everything, one for prompts, one for
output."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "support"))

import stator_process  # noqa: E402
import vllm_cpu  # noqa: E402


@pytest.fixture(scope="session")
def servers():
    made = {
        "one": vllm_cpu.VllmCpu("test-one"),
        "two": vllm_cpu.VllmCpu("test-two"),
        "prefill": vllm_cpu.VllmCpu("test-prefill", role="prefill"),
        "decode": vllm_cpu.VllmCpu("test-decode", role="decode"),
    }
    try:
        with vllm_cpu.running(*made.values()):
            for name in ("one", "two"):
                made[name].greedy([5, 6, 7], 2)  # the first request compiles
            yield made
    except vllm_cpu.Unavailable as why:
        pytest.skip(f"no real vLLM here: {why}")


@pytest.fixture
def start(tmp_path):
    """Starts Stator's processes in one folder; they end with the test."""
    running = []

    def begin(process):
        running.append(process)
        return process.start()

    yield lambda kind, *args, **options: begin(kind(*args, folder=tmp_path, **options))
    for process in reversed(running):
        process.stop()


@pytest.fixture
def serve(start):
    """`stator serve` in front of servers."""

    def begin(*servers, **options):
        return start(
            stator_process.StatorServer,
            engine=[f"vllm={s.url}" for s in servers],
            model_dir=vllm_cpu.model_folder(),
            **options,
        )

    return begin
