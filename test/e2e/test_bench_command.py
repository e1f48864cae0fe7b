"""`stator bench` as a process, against our own server and against servers that misbehave."""

import http.server
import json
import signal
import socket
import subprocess
import threading
import time

import pytest
import stator_process


def command(*args):
    return [stator_process.binary(), "bench", *(str(a) for a in args)]


def bench(*args, timeout=60, env=None):
    return subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(env),
    )


def report_of(*args, code=0, **options):
    done = bench("--json", "-", *args, **options)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def outcomes(report):
    return {o["outcome"]: o["count"] for o in report["outcomes"]}


SMALL = ["--isl", 40, "--osl", 8]


@pytest.fixture(scope="module")
def url(echo):
    return echo.base_url


@pytest.mark.parametrize(
    "workload, requests",
    [
        (["--kind", "fixed", "--rate", 100, "--requests", 20], 20),
        (["--kind", "fixed", "--arrivals", "constant", "--rate", 50, "--requests", 10], 10),
        (["--kind", "fixed", "--arrivals", "gamma", "--cv", 3, "--rate", 100, "--requests", 9], 9),
        (["--kind", "fixed", "--concurrency", 4, "--requests", 20], 20),
        (["--kind", "shared-prefix", "--prefix", 20, "--rate", 100, "--requests", 20], 20),
        (
            ["--kind", "chat", "--turns", 3, "--think-time", "10ms", "--system", 20]
            + ["--rate", 100, "--requests", 12],
            12,
        ),
        (
            ["--kind", "agent", "--turns", 2, "--calls", 3, "--think-time", "10ms"]
            + ["--system", 20, "--rate", 100, "--requests", 12],
            12,
        ),
    ],
    ids=lambda v: "-".join(str(x).strip("-") for x in v[1:4]) if isinstance(v, list) else "",
)
def test_each_kind_of_workload(url, workload, requests):
    report = report_of("--url", url, *SMALL, *workload)
    assert outcomes(report) == {"ok": requests}
    assert report["output_tokens"] == 8 * requests
    assert not report["partial"]
    assert report["warnings"] == []


@pytest.mark.parametrize("api", ["chat", "completions", "tokens"])
def test_prompts_have_the_length_that_was_asked(url, api):
    report = report_of(
        "--url", url, "--api", api, "--isl", 500, "--osl", 4, "--rate", 200, "--requests", 20
    )
    mean = report["input_tokens"] / 20
    # Token ids are exact, words are counted out by their mean length.
    assert mean == 500 if api == "tokens" else abs(mean - 500) < 25


def test_a_trace_and_prompts_from_files(url, tmp_path):
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 100 * i, "input_length": 600, "output_length": 5, "hash_ids": [1, 10 + i]}
        for i in range(5)
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ["--url", url, "--kind", "mooncake", "--trace", trace, "--speed", 4]
    report = report_of(*args)
    assert outcomes(report) == {"ok": 5}
    assert report["output_tokens"] == 25

    trace.write_text(trace.read_text() + "{nonsense\n")
    done = bench(*args)
    assert done.returncode == 2
    assert "line 6" in done.stderr
    report = report_of(*args, "--skip-bad")
    assert outcomes(report) == {"ok": 5}
    assert any("1 bad line" in w for w in report["warnings"])

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Why?"}\n{"prompt": "How?"}\n')
    report = report_of("--url", url, "--kind", "prompts", "--trace", prompts, "--rate", 50)
    assert outcomes(report) == {"ok": 2}


def test_the_same_seed_gives_the_same_requests(url):
    def tokens(seed):
        args = ["--isl", 100, "--isl-cv", 1, "--osl-cv", 1, "--rate", 200, "--requests", 20]
        r = report_of("--url", url, "--seed", seed, "--api", "tokens", *args)
        return r["input_tokens"], r["output_tokens"]

    assert tokens(5) == tokens(5)
    assert tokens(5) != tokens(6)


def test_table_json_and_page(url, tmp_path):
    done = bench(
        *["--url", url, *SMALL, "--rate", 100, "--requests", 10, "--warmup", 3],
        *["--json", tmp_path / "a.json", "--html", tmp_path / "a.html", "--name", "one run"],
        *["--slo-ttft", "2s", "--slo-itl", "50ms"],
    )
    assert done.returncode == 0, done.stderr
    assert "10 ok" in done.stdout and "TTFT" in done.stdout
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["name"] == "one run"
    assert report["requests"] == 10, "the warm-up is not counted"
    assert report["slo"]["ttft_ms"] == 2000
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!DOCTYPE html>") or page.startswith("<!doctype html>")
    assert "one run" in page

    done = bench("--draw", tmp_path / "a.json", tmp_path / "a.json", "--html", tmp_path / "b.html")
    assert done.returncode == 0, done.stderr
    assert "<svg" in (tmp_path / "b.html").read_text()
    (tmp_path / "bad.json").write_text("{}x")
    done = bench("--draw", tmp_path / "bad.json", "--html", tmp_path / "b.html")
    assert done.returncode == 2
    assert "bad.json" in done.stderr


def test_find_knee(url, tmp_path):
    done = bench(
        *["--url", url, *SMALL, "--find-knee", "--slo-ttft", "1us", "--rate", 20],
        *["--knee-duration", "200ms", "--json", tmp_path / "knee.json"],
    )
    assert done.returncode == 0, done.stderr
    assert "Not even" in done.stdout
    found = json.loads((tmp_path / "knee.json").read_text())
    assert found["knee"]["end"] == "none_met"
    assert len(found["reports"]) == len(found["knee"]["runs"])


def test_compare(url, tmp_path):
    done = bench(
        *["--compare", url, url, *SMALL, "--rate", 100, "--requests", 10, "--pairs", 2],
        *["--json", tmp_path / "c.json", "--html", tmp_path / "c.html"],
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "c.json").read_text())
    assert [r["name"] for r in result["reports"]] == ["A1", "B1", "A2", "B2"]
    assert result["comparison"]["pairs"] == 2
    assert (tmp_path / "c.html").exists()


# ---- what goes wrong


@pytest.mark.parametrize(
    "args, code, words",
    [
        (["--rate", "fast"], 2, "--rate"),
        (["--rat", "5"], 2, "--rate"),
        (["--kind", "mooncake"], 2, "--trace"),
        (["--kind", "mooncake", "--trace", "/nowhere"], 2, "/nowhere"),
        (["--slo-ttft", "soon"], 2, "--slo-ttft"),
        (["--find-knee"], 2, "--slo-ttft"),
        (["--find-knee", "--slo-ttft", "1s", "--concurrency", "3"], 2, "rate"),
        (["--compare", "http://a"], 2, "two URLs"),
        (["--draw", "x.json"], 2, "--html"),
        (["--body", "[1]"], 2, "JSON object"),
        (["--url", "ftp://x"], 2, "ftp://x"),
        (["extra"], 2, "extra"),
    ],
)
def test_wrong_words(args, code, words):
    done = bench(*args)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nobody_there():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        done = bench("--url", f"http://127.0.0.1:{s.getsockname()[1]}")
    assert done.returncode == 1
    assert "No server answers at" in done.stderr and "refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_key_is_asked_for(start_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret-key\n")
    keys.chmod(0o600)
    server = start_server(engine="echo", threads=1, api_key_file=keys)
    args = ["--url", server.base_url, *SMALL, "--rate", 100, "--requests", 3]
    done = bench(*args)
    assert done.returncode == 1
    assert "401" in done.stderr and "STATOR_API_KEY" in done.stderr
    assert outcomes(report_of(*args, "--api-key-file", keys)) == {"ok": 3}
    assert outcomes(report_of(*args, env={"STATOR_API_KEY": "secret-key"})) == {"ok": 3}


class Misbehaving(http.server.BaseHTTPRequestHandler):
    """Good for the two requests of the calibration, then each request meets its own fate."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        self.reply(200, json.dumps({"data": [{"id": "bad"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = body["messages"][0]["content"].count(" ")
        usage = {"prompt_tokens": words, "completion_tokens": 1}
        good = [
            {"choices": [{"delta": {"content": "x"}, "finish_reason": "length"}]},
            {"choices": [], "usage": usage},
        ]
        stream = "".join(f"data: {json.dumps(g)}\n\n" for g in good) + "data: [DONE]\n\n"
        with self.server.lock:
            n = self.server.served
            self.server.served += 1
        match n:
            case 2:
                self.reply(429, '{"error": {"message": "too busy"}}')
            case 3:
                self.reply(500, "broken")
            case 4:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            case 5:
                self.server.stalled.wait(20)
                self.close_connection = True
            case _:
                self.reply(200, stream)


@pytest.fixture
def misbehaving():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    server.lock = threading.Lock()
    server.served = 0
    server.stalled = threading.Event()
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.stalled.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_refusals_resets_and_stalls_are_named(misbehaving):
    url = f"http://127.0.0.1:{misbehaving.server_address[1]}"
    report = report_of(
        *["--url", url, "--isl", 10, "--osl", 1, "--concurrency", 1, "--requests", 8],
        *["--timeout", "300ms"],
    )
    assert outcomes(report) == {"ok": 4, "refused": 1, "http_error": 1, "reset": 1, "timeout": 1}
    assert any("too busy" in w for w in report["warnings"])


def test_a_server_that_dies_ends_the_run(start_server, tmp_path):
    server = start_server(engine="echo", threads=1, echo_step_us=2000)
    with subprocess.Popen(
        command(
            *["--url", server.base_url, "--isl", 20, "--osl", 20, "--concurrency", 4],
            *["--requests", 100000, "--json", tmp_path / "out.json"],
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=stator_process.child_environment(),
    ) as process:
        time.sleep(1)
        server.kill()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "The server is gone" in err
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["partial"]
    assert outcomes(report)["ok"] > 0
    assert outcomes(report)["connect"] >= 50


def test_ctrl_c_shows_what_was_measured(url, tmp_path):
    with subprocess.Popen(
        command(
            *["--url", url, *SMALL, "--rate", 50, "--requests", 100000],
            *["--json", tmp_path / "out.json", "--html", tmp_path / "out.html"],
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=stator_process.child_environment(),
    ) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Stopped" in err
    assert "TTFT" in out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["partial"]
    assert outcomes(report)["ok"] > 10
    assert (tmp_path / "out.html").exists()


def test_help_names_every_part():
    done = bench("--help")
    assert done.returncode == 0
    for word in ("--url", "--kind", "--slo-ttft", "--find-knee", "--compare", "--draw", "--json"):
        assert word in done.stdout
    assert all(len(line) <= 120 for line in done.stdout.splitlines())
