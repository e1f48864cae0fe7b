"""Frontends and workers as processes of their own, which meet in a folder: those of the tests, with
what a benchmark wants of them."""

import pathlib
import subprocess
import time

from stator_process import START_SECONDS, StartError, StatorFrontend, StatorWorker


class Frontend(StatorFrontend):
    """Ready once a model is served."""

    name = "stator frontend"

    def is_ready(self):
        return super().is_ready() and self.get_status("/health") == 200

    def ready_workers(self):
        return sum(w["state"] == "ready" for w in self.health()["fleet"]["workers"])

    def wait_for_workers(self, count):
        deadline = time.monotonic() + START_SECONDS
        while self.ready_workers() != count:
            if time.monotonic() > deadline:
                raise StartError(f"{self.ready_workers()} workers, not {count}: {self.log_tail()}")
            time.sleep(0.02)


class Worker(StatorWorker):
    """With the echo engine, by Unix socket or TCP."""

    def __init__(self, folder, name, link="unix", **options):
        if link == "tcp":
            options["listen"] = "127.0.0.1:0"
        super().__init__(folder, name, engine="echo", **options)


def meeting_place(folder):
    """Where the processes above announce themselves."""
    return pathlib.Path(folder) / "run" / "stator"


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
