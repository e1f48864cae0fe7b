"""Runs the real `stator` as child processes (`serve`, `frontend`, `worker`): on free ports, with
their logs in files, ended by process id.

Used by the end-to-end tests and by the benchmarks, so that the command lines are spelled in one
place.
"""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

START_SECONDS = 60
STOP_SECONDS = 30


class StartError(RuntimeError):
    """The server did not become ready; the message carries the end of its log."""


def binary():
    """Path of the server from the environment, or an error that says how to set it."""
    path = os.environ.get("STATOR_BIN", "")
    if not path:
        raise StartError("STATOR_BIN is not set: give the path of the stator binary")
    if not os.access(path, os.X_OK):
        raise StartError(f"STATOR_BIN={path} is not an executable file")
    return str(pathlib.Path(path).resolve())


def model():
    """Path of the GGUF model from the environment, or an error that says how to set it."""
    path = os.environ.get("STATOR_MODEL", "")
    if not path:
        raise StartError("STATOR_MODEL is not set: give the path of a GGUF model")
    if not os.path.isfile(path):
        raise StartError(f"STATOR_MODEL={path} is not a file")
    return str(pathlib.Path(path).resolve())


def child_environment(extra=None):
    """Our environment without the variables that configure a Stator, so that only flags count;
    `extra` is added."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith("STATOR_") or k == "STATOR_CACHE"
    }
    return {**kept, **(extra or {})}


def descriptors(pid):
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_mib(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024


class ChildProcess:
    """A process with a log file. Subclasses build the command and tell when it is ready."""

    name = "process"

    def __init__(self):
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="stator-child-"))
        self.log_path = self.scratch / "server.log"
        self.log_start = 0
        self.process = None

    def command(self):
        raise NotImplementedError

    def environment(self):
        """What the process gets beside child_environment()."""
        return {}

    def is_ready(self):
        raise NotImplementedError

    def start(self, env=None):
        self.launch(env)
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def launch(self, env=None):
        """Starts and does not wait until it is ready."""
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=child_environment({**self.environment(), **(env or {})}),
            )
        return self

    def wait_ready(self, seconds=START_SECONDS):
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if self.process.poll() is not None:
                raise StartError(
                    f"{self.name} ended with code {self.process.returncode} while starting:\n"
                    + self.log_tail()
                )
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready after {seconds} s:\n{self.log_tail()}")
            time.sleep(0.02)

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        """What it wrote since its last start."""
        if not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def log_tail(self, lines=40):
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def terminate(self):
        """Asks for a graceful end and returns at once."""
        self.signal(signal.SIGTERM)

    def wait(self, timeout=STOP_SECONDS):
        """Exit code; raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def kill(self):
        """SIGKILL; returns when it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """Graceful end within the time, else by force. Returns the exit code (-9 when forced)."""
        code = None
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.terminate()
            try:
                code = self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                code = self.process.returncode
        shutil.rmtree(self.scratch, ignore_errors=True)
        return code

    def __enter__(self):
        return self if self.process is not None else self.start()

    def __exit__(self, *exc):
        self.stop()


class ChildServer(ChildProcess):
    """A process that serves HTTP. Subclasses tell where it listens."""

    name = "server"

    def __init__(self):
        super().__init__()
        self.host = "127.0.0.1"
        self.port = 0

    def find_port(self):
        """The port once it is known, else 0."""
        raise NotImplementedError

    def launch(self, env=None):
        self.port = 0
        return super().launch(env)

    def is_ready(self):
        if not self.port:
            self.port = self.find_port()
        return bool(self.port) and self.get_status("/health") == 200

    def get_status(self, path):
        """Status of a GET, 0 where the server does not answer."""
        try:
            return self.request("GET", path, timeout=5)[0]
        except OSError:
            return 0

    def request(self, method, path, body=None, headers=None, timeout=60):
        """One HTTP exchange on a connection of its own: (status, headers, body bytes)."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
                headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    @property
    def base_url(self):
        return f"http://{self.host}:{self.port}"


def flags_of(options):
    """`max_running=16` as --max-running 16; a list gives the flag once for each of its values."""
    flags = []
    for name, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            flags += ["--" + name.replace("_", "-"), str(one)]
    return flags


class StatorServer(ChildServer):
    """`stator serve` on 127.0.0.1 and a free port. `options` are flag names without dashes, e.g.
    max_running=16. With `folder` it keeps its run-time files and caches there."""

    name = "stator"

    def __init__(self, model_path=None, prefix=(), extra=(), folder=None, **options):
        super().__init__()
        self.model_path = model_path
        self.folder = folder
        self.prefix = list(prefix)
        self.extra = list(extra)
        self.options = options
        self.port_file = self.scratch / "port"

    def launch(self, env=None):
        self.port_file.unlink(missing_ok=True)
        return super().launch(env)

    def command(self):
        command = [*self.prefix, binary(), "serve", "--host", self.host, "--port", "0"]
        command += ["--port-file", str(self.port_file)]
        if self.model_path:
            command += ["--model", self.model_path]
        return command + flags_of(self.options) + self.extra

    def environment(self):
        return fleet_environment(self.folder) if self.folder else {}

    def find_port(self):
        try:
            text = self.port_file.read_text().strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0


def fleet_environment(folder):
    """Makes the processes of one test meet each other there, and not the user's own."""
    run = pathlib.Path(folder) / "run"
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"XDG_RUNTIME_DIR": str(run), "STATOR_CACHE": str(pathlib.Path(folder) / "cache")}


class StatorFrontend(StatorServer):
    """`stator frontend` on 127.0.0.1 and a free port, for the workers of `folder`. It is ready when
    it answers, whether or not it knows a worker."""

    name = "frontend"

    def __init__(self, folder, **options):
        super().__init__(folder=folder, **options)

    def command(self):
        return [
            *self.prefix,
            *(binary(), "frontend", "--host", self.host, "--port", "0"),
            *("--port-file", str(self.port_file)),
            *flags_of(self.options),
            *self.extra,
        ]

    def is_ready(self):
        if not self.port:
            self.port = self.find_port()
        return bool(self.port) and self.get_status("/health") != 0

    def health(self):
        """The body of /health, whatever its status."""
        return json.loads(self.request("GET", "/health", timeout=10)[2])

    def workers(self):
        """The workers that have shaken hands: name → what /health says."""
        return {w["name"]: w for w in self.health()["fleet"]["workers"] if "name" in w}

    def states(self):
        return {name: w["state"] for name, w in self.workers().items()}

    def wait_workers(self, *names, seconds=START_SECONDS):
        """Until exactly these are ready and their model is served."""
        wanted = set(names)
        deadline = time.monotonic() + seconds
        while True:
            health = self.health()
            # A moment after the port, the fleet is there.
            fleet = health.get("fleet", {"workers": [], "pools": []})
            ready = {w.get("name") for w in fleet["workers"] if w["state"] == "ready"}
            served = {m["pool"] for m in health["models"]}
            if ready == wanted and served >= {p["id"] for p in fleet["pools"] if p["ready"]}:
                return self
            if time.monotonic() > deadline:
                raise StartError(f"ready are {ready}, not {wanted}; served {served}: {fleet}")
            time.sleep(0.02)

    def load(self, name):
        """(running, waiting) of a worker's first rank; None where it is not linked."""
        worker = self.workers().get(name)
        if worker is None or not worker.get("ranks"):
            return None
        return worker["ranks"][0]["running"], worker["ranks"][0]["waiting"]


class StatorWorker(ChildProcess):
    """`stator worker`, announced in the run-time folder below `folder` unless its options say
    otherwise."""

    name = "worker"

    def __init__(self, folder, worker_name, model_path=None, prefix=(), extra=(), **options):
        super().__init__()
        self.folder = folder
        self.name = worker_name
        self.model_path = model_path
        self.prefix = list(prefix)
        self.options = {"worker_name": worker_name, **options}
        self.extra = list(extra)

    def command(self):
        model_flags = ["--model", self.model_path] if self.model_path else []
        return [
            *self.prefix,
            *(binary(), "worker", *model_flags),
            *flags_of(self.options),
            *self.extra,
        ]

    def environment(self):
        return fleet_environment(self.folder)

    def is_ready(self):
        return bool(self.address())

    def address(self):
        """Where it takes links, once it is ready."""
        who = r"(?:Worker \S+ offers \S+|\d+ workers, \S+ to \S+, offer \S+, the first)"
        found = re.search(rf"^{who} on ([^\s,;]+)", self.log(), re.MULTILINE)
        return found.group(1) if found else ""
