"""Encode, prefill and decode workers of the mock engine under load, while they are killed and their
transfers are cut: what every request came to, and what is left afterwards.

Used by the end-to-end tests (a few faults) and by `./dev bench epd_faults` (hundreds).
"""

import collections
import concurrent.futures
import pathlib
import random
import re
import string
import threading
import time
import urllib.request

import answers
import cutting_proxy
import pictures
import stator_process
from metrics_text import Metrics

ROLES = ("prefill", "decode", "encode")
KILLS = tuple(f"kill {role}" for role in ROLES)
CUT = "cut transfer"
MODEL = "echo"
TOKENS = 12
# Steps of 2.5 ms; a prompt's KV is up to some megabytes, a picture's embeddings some 100 kB.
ENGINE = {
    "engine": "mock",
    "mock_preset": "constant-10ms",
    "mock_mean_output": 0,
    "speedup": 4,
    "max_sequence": 8192,
    "served_model_name": MODEL,
    "transfer_lease": "2s",
}
FRONTEND = {
    "threads": 1,
    "router_disaggregation": "always",
    "link_silent_after": "500ms",
    "link_lost_after": "3s",
    "wait_for_worker": "10s",
}
LEASE_SECONDS = 2
# Longest a request may take: some losses noticed late, some transfers given up at their deadline.
BOUND_SECONDS = 60
CUT_WAIT_SECONDS = 10


def requests(count, seed=1):
    """Bodies of chats: texts of mixed length, every fourth with a picture or two."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(400)]
    images = [
        pictures.data_url(pictures.png(40, 30, lambda x, y, n=n: (6 * x, 8 * y, 30 * n)))
        for n in range(8)
    ]
    out = []
    for i in range(count):
        text = f"{i} " + " ".join(rng.choices(words, k=max(1, int(200 ** rng.uniform(0.1, 1)))))
        parts = [{"type": "text", "text": text}]
        if i % 4 == 0:
            for url in rng.sample(images, rng.randint(1, 2)):
                parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
        out.append(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": parts}],
                "max_tokens": TOKENS,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
            }
        )
    return out


def ask(server, body, on_piece=None):
    return answers.exchange(
        server, "/v1/chat/completions", body, on_piece=on_piece, timeout=BOUND_SECONDS
    )


def outcome(answer, expected):
    """One word for what a request came to."""
    if answer.broken == "the client left":
        return "left" if expected.startswith(answer.text) else "wrong"
    if "imed out" in answer.broken or "not at its end" in answer.broken:
        return "hanging"
    if answer.error and not answer.broken:
        if not expected.startswith(answer.text):
            return "wrong"
        # The client is not to blame: 5xx, too much to do, or after the first token an event.
        blames = answer.status != 200 and answer.status != 429 and answer.status < 500
        said = answer.error.get("message") and answer.error.get("type")
        return "clear error" if said and not blames and answer.finish is None else "unclear"
    if answer.broken or answer.status != 200 or not answer.done or answer.finish != "length":
        return "unclear"
    return "right" if answer.text == expected else "wrong"


def whole_answers(folder, bodies):
    """What one mock worker that does everything answers."""
    worker = stator_process.StatorWorker(
        folder, "whole", **{**ENGINE, "role": ["aggregated", "encode"]}
    )
    frontend = stator_process.StatorFrontend(folder, threads=1)
    try:
        worker.start()
        frontend.start()
        frontend.wait_workers("whole")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda body: ask(frontend, body), bodies))
        for answer in got:
            assert answer.complete, str(answer)
        return [answer.text for answer in got]
    finally:
        frontend.stop()
        worker.stop()


def order_of_faults(faults, count, rng):
    """As many of each, in a random order."""
    out = [faults[i % len(faults)] for i in range(count)]
    rng.shuffle(out)
    return out


class Size:
    """What a process takes."""

    def __init__(self, pid):
        self.pid = pid
        self.mib = stator_process.resident_mib(pid)
        self.descriptors = stator_process.descriptors(pid)
        self.threads = len(list(pathlib.Path(f"/proc/{pid}/task").iterdir()))
        self.shared = sum(
            1 for link in pathlib.Path(f"/proc/{pid}/fd").iterdir() if _is_memory(link)
        )

    def __str__(self):
        return (
            f"{self.mib:.0f} MiB, {self.descriptors} descriptors ({self.shared} of memory), "
            f"{self.threads} threads"
        )


def _is_memory(link):
    try:
        return "memfd:" in str(link.readlink()) or "/dev/shm" in str(link.readlink())
    except OSError:
        return False


class EpdFleet:
    """A frontend and two workers of each role that meet in `folder`. Only the second of a role is
    killed: the first sees all its peers die, and must forget each. Over TCP what prefill and encode
    workers hand out goes by way of proxies that can cut it."""

    def __init__(self, folder, method, nixl_library=None, frontend=None, **options):
        self.proxies = []
        self.workers = {}
        for role in ROLES:
            for letter in "ab":
                own = {**ENGINE, **options, "role": role, "transfer": method}
                own["worker_http"] = "127.0.0.1:0"
                if nixl_library:
                    own["nixl_library"] = nixl_library
                if method == "tcp" and role != "decode":
                    port = cutting_proxy.free_port()
                    own["transfer_listen"] = f"127.0.0.1:{port}"
                    own["transfer_advertise"] = cutting_proxy.CuttingProxy.HOST
                    self.proxies.append(cutting_proxy.CuttingProxy(port))
                name = f"{role}-{letter}"
                self.workers[name] = stator_process.StatorWorker(folder, name, **own)
        self.frontend = stator_process.StatorFrontend(folder, **{**FRONTEND, **(frontend or {})})

    def start(self):
        for worker in self.workers.values():
            worker.launch()
        for worker in self.workers.values():
            worker.wait_ready()
        self.frontend.start()
        self.frontend.wait_workers(*self.workers)
        return self

    def stop(self):
        children = [self.frontend, *self.workers.values()]
        for child in children:
            if child.process is not None:
                child.terminate()
        for child in children:
            child.stop()
        for proxy in self.proxies:
            proxy.stop()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exc):
        self.stop()

    def do(self, fault, rng):
        """True when it has happened; then all workers are ready again."""
        if fault == CUT:
            return self.cut(rng)
        self.kill(fault.split()[1], rng)
        return True

    def kill(self, role, rng):
        """As `kill -9` does; the worker is started again."""
        worker = self.workers[f"{role}-b"]
        worker.kill()
        time.sleep(rng.uniform(0, 0.3))
        worker.start()
        self.frontend.wait_workers(*self.workers)

    def cut(self, rng):
        """A transfer under way. False: none came within some seconds."""
        proxy = rng.choice(self.proxies)
        place = rng.choice(list(cutting_proxy.PLACES))
        after = int(cutting_proxy.PLACES[place] ** rng.uniform(0, 1))
        proxy.arm(rng.choice(cutting_proxy.HOWS), place, after)
        deadline = time.monotonic() + CUT_WAIT_SECONDS
        while proxy.armed:
            if time.monotonic() > deadline:
                proxy.disarm()
                return False
            time.sleep(0.01)
        return True

    def cuts(self):
        return sum((proxy.cuts for proxy in self.proxies), collections.Counter())

    def metrics_of(self, worker):
        port = re.search(r"Health and metrics are shown\. port=(\d+)", worker.log()).group(1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return Metrics(answer.read().decode())

    def unclaimed_bytes(self):
        """Of handoffs that nobody has taken, on all workers."""
        return sum(
            self.metrics_of(w).sum("stator_transfer_unclaimed_bytes")
            for w in self.workers.values()
        )

    def handoffs(self):
        """What became of those that were claimed on the present workers: outcome → number."""
        out = collections.Counter()
        for worker in self.workers.values():
            for name, labels, value in self.metrics_of(worker).samples:
                if name == "stator_worker_handoffs_total":
                    out[f"{labels['kind']} {labels['outcome']}"] += int(value)
        return out

    def settle(self):
        """Waits until leases are over; returns the bytes that are unclaimed then."""
        deadline = time.monotonic() + 5 * LEASE_SECONDS
        while (left := self.unclaimed_bytes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def sizes(self):
        children = {"frontend": self.frontend, **self.workers}
        return {name: Size(child.pid) for name, child in children.items()}


class Load:
    """Asks without a pause, `at_once` at a time, and counts what came back. Every 20th client
    leaves at its first token."""

    def __init__(self, server, bodies, expected, at_once=8):
        self.server, self.bodies, self.expected = server, bodies, expected
        self.outcomes = collections.Counter()
        self.odd = []  # (number, answer) of what must not be
        self.errors = collections.Counter()
        self.slowest = 0.0
        self._next = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(at_once)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._stop.is_set():
            with self._lock:
                count = self._next
                self._next += 1
            number = count % len(self.bodies)
            leave = (lambda a: not a.text) if count % 20 == 19 else None
            answer = ask(self.server, self.bodies[number], leave)
            what = outcome(answer, self.expected[number])
            with self._lock:
                self.outcomes[what] += 1
                self.slowest = max(self.slowest, answer.seconds)
                if what == "clear error":
                    self.errors[f"{answer.status} {answer.error['message'][:160]}"] += 1
                elif what not in ("right", "left"):
                    self.odd.append((number, answer))
