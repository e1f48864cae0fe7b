"""Runs the real `stator serve` as a child process: on a free port, with its log in a file, ended
by its process id.

Used by the end-to-end tests and by the benchmarks, so that the command line of the server is
spelled in one place.
"""

import http.client
import json
import os
import pathlib
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


class ChildServer:
    """A server process with a log file. Subclasses build the command and tell where it listens."""

    name = "server"

    def __init__(self):
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="stator-child-"))
        self.log_path = self.scratch / "server.log"
        self.process = None
        self.host = "127.0.0.1"
        self.port = 0

    def command(self):
        raise NotImplementedError

    def find_port(self):
        """The port once it is known, else 0."""
        raise NotImplementedError

    def start(self, env=None):
        self.port = 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=child_environment(env),
            )
        try:
            self._wait_ready(time.monotonic() + START_SECONDS)
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_ready(self, deadline):
        while True:
            if self.process.poll() is not None:
                raise StartError(
                    f"{self.name} ended with code {self.process.returncode} while starting:\n"
                    + self.log_tail()
                )
            if not self.port:
                self.port = self.find_port()
            if self.port and self.get_status("/health") == 200:
                return
            if time.monotonic() > deadline:
                raise StartError(
                    f"{self.name} was not ready after {START_SECONDS} s:\n{self.log_tail()}"
                )
            time.sleep(0.02)

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
    def pid(self):
        return self.process.pid

    @property
    def base_url(self):
        return f"http://{self.host}:{self.port}"

    def log_tail(self, lines=40):
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def terminate(self):
        """Asks for a graceful end and returns at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout=STOP_SECONDS):
        """Exit code; raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """Graceful end within the time, else by force. Returns the exit code (-9 when forced)."""
        code = None
        if self.process is not None:
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


class StatorServer(ChildServer):
    """`stator serve` on 127.0.0.1 and a free port. `options` are flag names without dashes, e.g.
    max_running=16."""

    name = "stator"

    def __init__(self, model_path=None, prefix=(), extra=(), **options):
        super().__init__()
        self.model_path = model_path
        self.prefix = list(prefix)
        self.extra = list(extra)
        self.options = options
        self.port_file = self.scratch / "port"

    def command(self):
        command = [*self.prefix, binary(), "serve", "--host", self.host, "--port", "0"]
        command += ["--port-file", str(self.port_file)]
        if self.model_path:
            command += ["--model", self.model_path]
        for flag, value in self.options.items():
            command += ["--" + flag.replace("_", "-"), str(value)]
        return command + self.extra

    def find_port(self):
        try:
            text = self.port_file.read_text().strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0
