"""Everything breaks at once: connections through a faulty network, workers killed, stopped and
restarted at random, under streaming load. Whatever happens, each answer is whole and exact or says
that it failed.

STATOR_CHAOS_SEED=N repeats a sequence of faults, STATOR_CHAOS_SECONDS=N sets how long it lasts.
"""

import collections
import os
import random
import signal
import string
import threading
import time

import pytest
from answers import echo_of, exchange, stream_completion
from conftest import read_metrics, wait_until
from fault_proxy import FAULTS, FaultProxy
from stator_process import descriptors, resident_mib

SECONDS = float(os.environ.get("STATOR_CHAOS_SECONDS", "25"))
CLIENTS = 12
WORKERS = ("w1", "w2", "w3")
# Longest an answer may take: its own time, some losses noticed late, some waits for a worker.
BOUND_SECONDS = 30
FRONTEND = {
    "link_silent_after": "300ms",
    "link_lost_after": "1s",
    "canary_after": "2s",
    "canary_within": "2s",
    "wait_for_worker": "5s",
    "max_migrations": 20,
}


class Load:
    """Clients that ask one after the other, until told to stop, and keep what came back."""

    def __init__(self, frontend, seed):
        self.frontend = frontend
        self.ended = collections.Counter()
        self.wrong = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._client, args=(random.Random(seed + i),))
            for i in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def finish(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * BOUND_SECONDS)
            assert not thread.is_alive(), "a client hangs"

    def _client(self, rng):
        while not self._stop.is_set():
            prompt = "".join(rng.choices(string.ascii_letters, k=rng.randint(20, 300)))
            count = rng.randint(1, 500)
            kind = rng.choices(["stream", "whole", "leave"], [8, 2, 1])[0]
            outcome, problem, seconds = self._ask(kind, prompt, count)
            with self._lock:
                self.ended[outcome] += 1
                self.slowest = max(self.slowest, seconds)
                if problem:
                    self.wrong.append(problem)
            if outcome == "refused":
                time.sleep(0.1)

    def _ask(self, kind, prompt, count):
        if kind == "whole":
            body = {"model": "echo", "prompt": prompt, "max_tokens": count, "ignore_eos": True}
            answer = exchange(
                self.frontend, "/v1/completions", body, timeout=BOUND_SECONDS
            )
            whole = answer.status == 200 and not answer.broken
        else:
            leave = (lambda a: len(a.tokens) < count // 2) if kind == "leave" else None
            answer = stream_completion(
                self.frontend, prompt, count, on_piece=leave, timeout=BOUND_SECONDS
            )
            if answer.broken == "the client left":
                exact = answer.text == echo_of(prompt, len(answer.text))
                return "left", "" if exact else f"wrong text: {answer}", answer.seconds
            whole = answer.complete and answer.tokens == [ord(c) for c in echo_of(prompt, count)]
        if answer.error and not answer.broken:
            exact = answer.text == echo_of(prompt, len(answer.text))
            outcome = "failed" if answer.status == 200 else "refused"
            clean = exact and answer.finish is None
            return outcome, "" if clean else f"error after a wrong text: {answer}", answer.seconds
        exact = (
            whole
            and answer.text == echo_of(prompt, count)
            and answer.finish == "length"
            and answer.usage["completion_tokens"] == count
            and answer.usage["prompt_tokens"] == len(prompt)
        )
        return "whole", "" if exact else f"neither whole nor an error: {answer}", answer.seconds


def disturb(rng, workers, proxies):
    """One thing that goes wrong. Returns its name."""
    if rng.random() < 0.6:
        fault = rng.choice(FAULTS)
        rng.choice(proxies).inject(fault, rng)
        return fault
    worker = rng.choice(workers)
    what = rng.choice(["kill", "stop", "continue", "restart"])
    dead = worker.process.poll() is not None
    if what == "kill":
        worker.kill()
    elif what == "stop" and not dead:
        worker.signal(signal.SIGSTOP)
    elif what == "continue" or not dead:
        worker.signal(signal.SIGCONT)
    if dead:
        worker.launch()
        what = "start"
    return what


@pytest.fixture
def seed():
    value = int(os.environ.get("STATOR_CHAOS_SEED", random.randrange(1 << 32)))
    print(f"STATOR_CHAOS_SEED={value}")
    return value


@pytest.fixture
def city(fleet):
    """A frontend that knows three workers by a faulty network only."""
    workers = fleet.echo_workers(
        *WORKERS, listen="127.0.0.1:0", announce="off", events="off", link_lost_after="1s"
    )
    proxies = []
    for worker in workers:
        # The same address after a restart.
        worker.options["listen"] = worker.address()
        proxies.append(FaultProxy(int(worker.address().rsplit(":", 1)[1])).start())
    frontend = fleet.frontend(discover=[f"127.0.0.1:{p.port}" for p in proxies], **FRONTEND)
    frontend.wait_workers(*WORKERS)
    yield frontend, workers, proxies
    for proxy in proxies:
        proxy.stop()


def run_load(frontend, seed, seconds, meanwhile):
    load = Load(frontend, seed)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            meanwhile()
    finally:
        load.finish()
    return load


def test_chaos(city, seed):
    frontend, workers, proxies = city
    rng = random.Random(seed)

    # What the frontend needs under this load when nothing is wrong.
    calm = run_load(frontend, 1, 2, lambda: time.sleep(0.1))
    assert not calm.wrong, calm.wrong[:3]
    assert set(calm.ended) <= {"whole", "left"}, calm.ended
    before = descriptors(frontend.pid), resident_mib(frontend.pid)

    done = collections.Counter()

    def meanwhile():
        done[disturb(rng, workers, proxies)] += 1
        time.sleep(rng.uniform(0.05, 0.5))

    load = run_load(frontend, seed, SECONDS, meanwhile)
    moved = read_metrics(frontend).sum("stator_pool_migrations_total")
    print(
        f"faults {dict(done)}, answers {dict(load.ended)}, moved {moved:.0f}, "
        f"slowest {load.slowest:.1f} s"
    )

    assert frontend.process.poll() is None, "the frontend has died"
    assert not load.wrong, f"seed {seed}: {len(load.wrong)} wrong, first: {load.wrong[:3]}"
    assert load.slowest < BOUND_SECONDS
    assert moved > 10, "the faults met no request"
    assert load.ended["whole"] > load.ended.total() / 2, load.ended

    # Everything is well again: so is the fleet, and nothing has stayed behind.
    for worker in workers:
        worker.signal(signal.SIGCONT)
        if worker.process.poll() is not None:
            worker.launch()
    for proxy in proxies:
        proxy.inject("cut", rng)
    frontend.wait_workers(*WORKERS, seconds=20)
    again = run_load(frontend, 2, 1, lambda: time.sleep(0.1))
    assert not again.wrong, again.wrong[:3]
    assert set(again.ended) <= {"whole", "left"}, again.ended
    wait_until(lambda: [frontend.load(w) for w in WORKERS] == [(0, 0)] * 3, "nothing runs")
    assert read_metrics(frontend).sum("stator_bugs_total") == 0
    wait_until(
        lambda: descriptors(frontend.pid) <= before[0] + 2,
        f"descriptors are back at {before[0]}, not {descriptors(frontend.pid)}",
    )
    after = resident_mib(frontend.pid)
    print(f"frontend: {before[1]:.1f} MiB before, {after:.1f} MiB after")
    assert after < before[1] + 16
