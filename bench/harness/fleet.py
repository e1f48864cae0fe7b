"""Frontends and workers as processes of their own, which meet in a folder."""

import json
import subprocess
import time

from stator_process import START_SECONDS, ChildServer, StartError, binary


def flags(options):
    return [word for k, v in options.items() for word in ("--" + k.replace("_", "-"), str(v))]


class Frontend(ChildServer):
    """`stator frontend` that finds its workers in `folder`; ready with the first of them. Options
    are flag names without dashes."""

    name = "stator frontend"

    def __init__(self, folder, prefix=(), **options):
        super().__init__()
        self.folder = folder
        self.prefix = list(prefix)
        self.options = options
        self.port_file = self.scratch / "port"

    def command(self):
        own = {"host": self.host, "port": 0, "port_file": self.port_file}
        own |= {"discover": f"dir:{self.folder}", "artifact_folder": self.scratch / "artifacts"}
        return [*self.prefix, binary(), "frontend", *flags(own | self.options)]

    def find_port(self):
        try:
            text = self.port_file.read_text().strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0

    def health(self):
        return json.loads(self.request("GET", "/health")[2])

    def ready_workers(self):
        return sum(w["state"] == "ready" for w in self.health()["fleet"]["workers"])

    def wait_for_workers(self, count):
        deadline = time.monotonic() + START_SECONDS
        while self.ready_workers() != count:
            if time.monotonic() > deadline:
                raise StartError(f"{self.ready_workers()} workers, not {count}: {self.log_tail()}")
            time.sleep(0.02)


class Worker(ChildServer):
    """`stator worker --engine echo`, announced in `folder`; by Unix socket or TCP."""

    name = "stator worker"

    def __init__(self, folder, name, link="unix", prefix=(), **options):
        super().__init__()
        self.folder = folder
        self.worker_name = name
        self.link = link
        self.prefix = list(prefix)
        self.options = options

    def command(self):
        listen = "127.0.0.1:0" if self.link == "tcp" else f"unix:{self.folder}/%p.sock"
        own = {"worker_name": self.worker_name, "engine": "echo", "announce": self.folder}
        own |= {"listen": listen, "events": f"ipc://{self.folder}/%p.events"}
        return [*self.prefix, binary(), "worker", *flags(own | self.options)]

    def find_port(self):
        return 0

    def _wait_ready(self, deadline):
        while "The worker is ready." not in self.log_tail():
            if self.process.poll() is not None:
                raise StartError(f"{self.name} ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready in time:\n{self.log_tail()}")
            time.sleep(0.02)


class ManyWorkers:
    """`count` idle workers in one process (bench/planes/many_workers.cc)."""

    def __init__(self, program, count, folder, link="unix"):
        self.process = subprocess.Popen(
            [program, str(count), str(folder), link],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self.process.stdout.readline().strip() != "ready":
            self.process.kill()
            raise StartError(f"{program} did not start")

    @property
    def pid(self):
        return self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
