"""The peers of `text`: Dynamo's frontend with its mocker, and vllm-router before a server that does
nothing, set up once (three minutes) by the harness in $STATOR_PEERS; and its load generator."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from peers.llama_server import cache_folder

SETUP_SECONDS = 1800
START_SECONDS = 90
DYNAMO = "Dynamo 1.6.1, fastokens"
VLLM_ROUTER = "vllm-router 0.1.17"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class FrontendPeers:
    """The peers' programs, models and request bodies on disk."""

    def __init__(self):
        given = os.environ.get("STATOR_PEERS")
        source = pathlib.Path(given) / "frontend_load" if given else None
        if source is None or not (source / "setup.sh").exists():
            sys.exit("$STATOR_PEERS names no folder with frontend_load: the peers' harness")
        digest = hashlib.sha256()
        for name in ("setup.sh", "loadgen.c", "fakebackend.c", "mkbodies.py", "mkmodel.py"):
            digest.update((source / name).read_bytes())
        self.folder = cache_folder() / f"peer-frontends-{digest.hexdigest()[:12]}"
        if not (self.folder / "ready").exists():
            print("  setting up Dynamo and vllm-router (once) …", flush=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            command = ["bash", str(source / "setup.sh"), str(self.folder)]
            with open(self.folder / "setup.log", "wb") as log:
                done = subprocess.run(
                    command, stdout=log, stderr=log, timeout=SETUP_SECONDS, cwd=self.folder
                )
            if done.returncode:
                sys.exit(f"the peers could not be set up; see {self.folder}/setup.log")
            (self.folder / "ready").touch()

    @property
    def model(self):
        """A folder with a real tokenizer and template, without weights."""
        return self.folder / "models" / "qwen3-fake"

    def load(self, port, case, connections, pids, seconds, warmup=1.0, quickack=False):
        """One block of load. `pids`: {name: pid}; CPU, RSS and threads of each are in
        result["proc"][name]."""
        command = [
            self.folder / "bin" / "loadgen",
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--bodies", self.folder / "bodies" / f"{case}.ndjson"),
            *("--conns", str(connections), "--duration", str(seconds), "--warmup", str(warmup)),
        ]
        if quickack:
            command += ["--quickack", "1"]
        for name, pid in pids.items():
            command += ["--pid", f"{name}={pid}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return json.loads(done.stdout)


def wait_for_answer(port, processes=()):
    """Until a chat is answered, or one of the processes has ended."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    chat = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"content-type": "application/json"}
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            request = urllib.request.Request(url, json.dumps(chat).encode(), headers)
            urllib.request.urlopen(request, timeout=5).read()
            return
        except OSError as e:
            if any(p.poll() is not None for p in processes):
                raise RuntimeError("a process ended while it was started") from None
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer after {START_SECONDS} s: {e}") from None
            time.sleep(0.1)


class _Peer:
    """Processes in a folder of their own, ended by pid."""

    def __init__(self):
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="stator-peer-"))
        self.processes = []

    def spawn(self, name, command, env=None):
        with open(self.scratch / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [str(c) for c in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self.scratch,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def wait_ready(self):
        try:
            wait_for_answer(self.port, self.processes)
        except RuntimeError as e:
            files = sorted(self.scratch.glob("*.log"))
            logs = "\n".join(f.read_text(errors="replace")[-2000:] for f in files)
            raise RuntimeError(f"{e}:\n{logs}") from None

    def __enter__(self):
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Dynamo(_Peer):
    """Its frontend with the fast tokenizer, one mocker without latency; no etcd, no NATS."""

    def __init__(self, peers):
        super().__init__()
        self.peers = peers
        self.port = free_port()

    def start(self):
        python = self.peers.folder / "venv" / "bin" / "python"
        env = dict(
            os.environ,
            DYN_FILE_KV=str(self.scratch / "kv"),
            HF_HUB_OFFLINE="1",
            DYN_DISCOVERY_BACKEND="file",
            DYN_REQUEST_PLANE="tcp",
            DYN_EVENT_PLANE="zmq",
            DYN_TCP_RPC_HOST="127.0.0.1",
            DYN_TCP_RESPONSE_STREAM_HOST="127.0.0.1",
            DYN_EVENT_PLANE_HOST="127.0.0.1",
        )
        frontend = [python, "-m", "dynamo.frontend", "--http-host", "127.0.0.1"]
        frontend += ["--http-port", self.port, "--router-mode", "kv", "--tokenizer", "fastokens"]
        worker = [python, "-m", "dynamo.mocker", "--model-path", self.peers.model]
        worker += ["--model-name", "fake", "--speedup-ratio", "1000000", "--num-workers", "1"]
        self.pids = {
            "frontend": self.spawn("frontend", frontend, env).pid,
            "worker": self.spawn("worker", worker, env).pid,
        }


class IdleServer(_Peer):
    """An OpenAI-compatible server in C that answers at once and computes nothing."""

    def __init__(self, peers):
        super().__init__()
        self.peers = peers
        self.port = free_port()

    def start(self):
        program = self.peers.folder / "bin" / "fakebackend"
        self.pids = {"worker": self.spawn("server", [program, self.port]).pid}


class VllmRouter(_Peer):
    """In front of an IdleServer."""

    def __init__(self, peers, upstream_port):
        super().__init__()
        self.peers = peers
        self.upstream_port = upstream_port
        self.port = free_port()

    def start(self):
        program = self.peers.folder / "venv-vllm-router" / "bin" / "vllm-router"
        command = [program, "--host", "127.0.0.1", "--port", self.port, "--worker-urls"]
        command += [f"http://127.0.0.1:{self.upstream_port}", "--policy", "round_robin"]
        command += ["--prometheus-port", free_port()]
        router = self.spawn("router", command, dict(os.environ, HF_HUB_OFFLINE="1"))
        self.pids = {"frontend": router.pid}
