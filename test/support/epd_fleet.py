"""Encode, prefill and decode workers of the mock engine under load, while they are killed and their
transfers are cut: what every request came to, and what is left afterwards.

Used by the end-to-end tests (a few faults) and by `./dev bench epd_faults` (hundreds).
"""

import asyncio
import collections
import concurrent.futures
import pathlib
import random
import re
import socket
import string
import threading
import time
import urllib.request

import answers
import pictures
import stator_process
from metrics_text import Metrics

ROLES = ("prefill", "decode", "encode")
FAULTS = ("kill prefill", "kill decode", "kill encode", "cut transfer")
MODEL = "echo"
TOKENS = 10
# Of 16 tokens' time each step; a prompt's KV is some megabytes, a picture's embeddings some 100 kB.
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
    "max_migrations": 20,
    # Many processes on few cores are no stuck engine.
    "canary_after": "60s",
}
LEASE_S = 2


class CuttingProxy:
    """Passes bytes between 127.0.0.2:`port` and 127.0.0.1:`port`, and once it is armed cuts a
    connection after a random number of them: reset, closed, or silent from then on."""

    HOST = "127.0.0.2"
    SILENCE_S = 3

    def __init__(self, port):
        self.port = port
        self.cuts = collections.Counter()
        self._armed = None
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, self.HOST, port))

    def arm(self, rng):
        """The next cut: after how many bytes of a transfer, and how."""
        how = rng.choice(("reset", "close", "silence"))
        self._armed = [int(2 ** rng.uniform(0, 20)), how]

    @property
    def armed(self):
        return self._armed is not None

    def stop(self):
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        other = None
        try:
            back, other = await asyncio.open_connection("127.0.0.1", self.port)
            ways = [
                asyncio.create_task(self._pump(reader, other)),
                asyncio.create_task(self._pump(back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, other):
                if end is not None:
                    end.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            if self._armed is not None:
                self._armed[0] -= len(data)
                if self._armed[0] <= 0:
                    keep, how = len(data) + self._armed[0], self._armed[1]
                    self._armed = None
                    self.cuts[how] += 1
                    await self._cut(writer, data[: max(keep, 0)], how)
                    return
            writer.write(data)
            await writer.drain()

    async def _cut(self, writer, rest, how):
        writer.write(rest)
        if how == "silence":
            await asyncio.sleep(self.SILENCE_S)
        elif how == "close":
            await writer.drain()
            writer.close()
            await asyncio.sleep(0.05)
        # Else both ends are aborted by who called.


def free_port():
    """Free on both addresses."""
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        port = a.getsockname()[1]
        b.bind((CuttingProxy.HOST, port))
        return port


def requests(count, seed=1):
    """Texts of mixed length, every fifth with a picture or two: bodies of chats."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(400)]
    images = [
        pictures.data_url(pictures.png(40, 30, lambda x, y, n=n: (6 * x, 8 * y, 30 * n)))
        for n in range(6)
    ]
    out = []
    for i in range(count):
        text = f"{i} " + " ".join(rng.choices(words, k=max(1, int(120 ** rng.uniform(0.1, 1)))))
        parts = [{"type": "text", "text": text}]
        if i % 5 == 0:
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


def ask(server, body, timeout=60):
    return answers.exchange(server, "/v1/chat/completions", body, timeout=timeout)


def outcome(answer, expected):
    """One word for what a request came to."""
    if "imeout" in answer.broken or "timed out" in answer.broken or "not at its end" in answer.broken:
        return "hanging"
    if answer.error:
        said = answer.error.get("message"), answer.error.get("type")
        return "clear error" if all(said) else "unclear"
    if answer.broken or answer.status != 200 or not answer.done:
        return "unclear"
    return "right" if answer.text == expected else "wrong"


class EpdFleet:
    """A frontend and two workers of each role that meet in `folder`."""

    def __init__(self, folder, method, nixl_library=None):
        self.folder = folder
        self.method = method
        self.proxies = []
        self.workers = {}
        for role in ROLES:
            for letter in "ab":
                options = {**ENGINE, "role": role, "transfer": method}
                options["worker_http"] = "127.0.0.1:0"
                if nixl_library:
                    options["nixl_library"] = nixl_library
                if method == "tcp" and role != "decode":
                    port = free_port()
                    options["transfer_listen"] = f"127.0.0.1:{port}"
                    options["transfer_advertise"] = CuttingProxy.HOST
                    self.proxies.append(CuttingProxy(port))
                name = f"{role}-{letter}"
                self.workers[name] = stator_process.StatorWorker(folder, name, **options)
        self.frontend = stator_process.StatorFrontend(folder, **FRONTEND)

    def start(self):
        for worker in self.workers.values():
            worker.launch()
        for worker in self.workers.values():
            worker.wait_ready()
        self.frontend.start()
        self.frontend.wait_workers(*self.workers)
        return self

    def stop(self):
        for child in (self.frontend, *self.workers.values()):
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

    def kill(self, role, rng):
        """One of the role's workers, as `kill -9` does; it is started again."""
        worker = self.workers[f"{role}-{rng.choice('ab')}"]
        worker.kill()
        time.sleep(rng.uniform(0, 0.3))
        worker.start()
        self.frontend.wait_workers(*self.workers)

    def cut(self, rng):
        """A transfer under way. False: none came within some seconds."""
        proxy = rng.choice(self.proxies)
        proxy.arm(rng)
        deadline = time.monotonic() + 10
        while proxy.armed:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def do(self, fault, rng):
        if fault == "cut transfer":
            return self.cut(rng)
        self.kill(fault.split()[1], rng)
        return True

    def unclaimed_bytes(self):
        """Of handoffs that nobody has taken, on all workers."""
        total = 0
        for worker in self.workers.values():
            port = re.search(r"Health and metrics are shown\. port=(\d+)", worker.log()).group(1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                total += Metrics(answer.read().decode()).sum("stator_transfer_unclaimed_bytes")
        return total

    def settle(self):
        """Until leases are over; what is unclaimed then."""
        deadline = time.monotonic() + 5 * LEASE_S
        while (left := self.unclaimed_bytes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def sizes(self):
        """pid → (resident MiB, descriptors, threads) of each process, by name."""
        out = {}
        for name, child in {"frontend": self.frontend, **self.workers}.items():
            out[name] = (
                child.pid,
                stator_process.resident_mib(child.pid),
                stator_process.descriptors(child.pid),
                len(list(pathlib.Path(f"/proc/{child.pid}/task").iterdir())),
            )
        return out


class Load:
    """Asks without a pause, `at_once` at a time, and counts what came back."""

    def __init__(self, server, bodies, expected, at_once=8):
        self.server, self.bodies, self.expected = server, bodies, expected
        self.outcomes = collections.Counter()
        self.odd = []  # (number, answer) of what is neither right nor a clear error
        self.errors = collections.Counter()
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
                number = self._next % len(self.bodies)
                self._next += 1
            answer = ask(self.server, self.bodies[number])
            what = outcome(answer, self.expected[number])
            with self._lock:
                self.outcomes[what] += 1
                if what == "clear error":
                    self.errors[answer.error["message"][:120]] += 1
                elif what != "right":
                    self.odd.append((number, answer))


def whole_answers(folder, bodies):
    """What one mock worker that does everything answers."""
    options = {**ENGINE, "role": ["aggregated", "encode"]}
    worker = stator_process.StatorWorker(folder, "whole", **options)
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


def order_of_faults(faults, count, seed):
    """As many of each, in a random order."""
    out = [faults[i % len(faults)] for i in range(count)]
    random.Random(seed).shuffle(out)
    return out
