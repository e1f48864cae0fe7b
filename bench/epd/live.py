"""One workload in real time: a frontend and a worker process for each device, `stator bench` as the
client. Run by run.py; as a program it does one run: `live.py SPEC.json REPORT.json`."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

from harness import procfs  # noqa: E402
from harness.fleet import Frontend  # noqa: E402
from stator_process import StatorWorker, binary  # noqa: E402

BENCH_SECONDS = 300
# What a device is in both: real handoffs need not be as large as those of the model that is
# imitated, and pictures not as many pixels as they become tokens for.
KV_BYTES = 512
PIXELS_PER_TOKEN = 16
IMAGE_TOKENS = 1024
WORKER = {
    "engine": "mock",
    "served_model_name": "mock",
    "max_running": 256,
    "max_waiting": 1024,
    "step_tokens": 8192,
    "threads": 1,
    "log_level": "warn",
    "transfer": "shm",
    "mock_kv_bytes": KV_BYTES,
    "mock_image_pixels": PIXELS_PER_TOKEN,
    "mock_image_tokens": IMAGE_TOKENS,
    "mock_embedding_width": 64,
    "label": "host=bench",
}
FRONTEND = {"access_log": "false", "threads": 1, "max_inflight": 4096, "log_level": "warn"}


def workers_of(folder, fleet, preset):
    """Processes for groups as a scenario has them; `role` may be several with + between them."""
    out = []
    for group in fleet:
        for i in range(group["workers"]):
            options = {**WORKER, "mock_preset": preset, "role": group["role"].split("+")}
            out.append(StatorWorker(folder, f"{group['name']}-{i}", **options))
    return out


def flags(workload):
    """A scenario's workload as flags of `stator bench`."""
    out = []
    for name, value in workload.items():
        out += ["--" + name] if value is True else ["--" + name, str(value)]
    return out


def client(url, workload, slo, path, *more):
    api = "chat" if "images" in workload else "tokens"
    command = [binary(), "bench", "--url", url, "--api", api, "--model", "mock", *flags(workload)]
    command += ["--slo-ttft", slo["ttft"], "--slo-itl", slo["itl"], "--json", str(path), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BENCH_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"stator bench failed:\n{done.stdout}{done.stderr}")
    return json.loads(pathlib.Path(path).read_text())


def histograms(frontend):
    """How many tokens were to be computed, of prompts served whole and of split ones:
    {way: [(upper bound, how many)]}."""
    text = frontend.request("GET", "/metrics")[2].decode()
    out = {"whole": [], "split": []}
    for line in text.splitlines():
        if not line.startswith("stator_router_computed_tokens_bucket"):
            continue
        way = re.search(r'way="(\w+)"', line)[1]
        bound = re.search(r'le="([^"]+)"', line)[1]
        out[way].append((float(bound), float(line.rsplit(" ", 1)[1])))
    for way, cumulated in out.items():
        cumulated.sort()
        before = [0.0] + [n for _, n in cumulated[:-1]]
        out[way] = [(bound, n - b) for (bound, n), b in zip(cumulated, before)]
    return out


def less(after, before):
    return {
        way: [(bound, n - b) for (bound, n), (_, b) in zip(buckets, before[way])]
        if before[way]
        else buckets
        for way, buckets in after.items()
    }


def run(spec):
    """The report of `stator bench`, with what else was seen in its `live`."""
    slo, workload = spec["slo"], spec["workload"]
    with tempfile.TemporaryDirectory(prefix="stator-bench-") as folder, contextlib.ExitStack() as s:
        workers = workers_of(folder, spec["fleet"], spec["preset"])
        for worker in workers:
            worker.launch()
            s.callback(worker.stop)
        for worker in workers:
            worker.wait_ready()
        door = s.enter_context(
            Frontend(folder, router_disaggregation=spec["disaggregation"], **FRONTEND)
        )
        door.wait_for_workers(len(workers))
        path = pathlib.Path(folder) / "report.json"
        # The router has to learn how fast workers and handoffs are; its caches stay cold.
        client(door.base_url, {**workload, **spec["warm_up"]}, slo, path, "--seed", "99")
        pids = {"frontend": [door.pid], "workers": [w.pid for w in workers]}
        cpu = {who: sum(map(procfs.cpu_seconds, of)) for who, of in pids.items()}
        before, busy, start = histograms(door), procfs.machine_busy_seconds(), time.monotonic()
        report = client(door.base_url, workload, slo, path, "--seed", str(spec["seed"]))
        wall = time.monotonic() - start
        cores = {
            who: (sum(map(procfs.cpu_seconds, of)) - cpu[who]) / wall for who, of in pids.items()
        }
        report["live"] = {
            "cores": cores,
            "machine_busy_cores": (procfs.machine_busy_seconds() - busy) / wall,
            "computed": less(histograms(door), before),
        }
        return report


if __name__ == "__main__":
    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    pathlib.Path(sys.argv[2]).write_text(json.dumps(run(spec)))
