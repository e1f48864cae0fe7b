"""Start and end of the process: exit codes, one-sentence errors, graceful stop."""

import pathlib
import re
import signal
import socket
import subprocess

import pytest
import stator_process
from conftest import wait_until
from raw_http import RawConnection, get, post

CHAT = "/v1/chat/completions"
STORY = {
    "model": "m",
    "messages": [{"role": "user", "content": "Tell me about the sea."}],
    "temperature": 0,
    "stream": True,
    "ignore_eos": True,
}


def run(*args, timeout=60):
    return subprocess.run(
        [stator_process.binary(), *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(),
    )


def refused(*flags):
    """stderr of a `serve` that must end with exit code 2 and one sentence, without a stack
    trace."""
    done = run("serve", "--port", "0", *flags)
    assert done.returncode == 2, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 3, done.stderr
    for sign in ("#0", "terminate called", "what():", "Assertion", "Traceback", ".cc:"):
        assert sign not in done.stderr
    return done.stderr


def test_missing_model_file(tmp_path):
    assert "absent.gguf" in refused("--model", str(tmp_path / "absent.gguf"))


def test_folder_as_model(tmp_path):
    assert str(tmp_path) in refused("--model", str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all\n" * 100])
def test_file_that_is_no_model(tmp_path, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    assert "broken.gguf" in refused("--model", str(path))


def test_truncated_model(tmp_path):
    path = tmp_path / "cut.gguf"
    with open(stator_process.model(), "rb") as whole:
        path.write_bytes(whole.read(8 << 20))
    assert "cut.gguf" in refused("--model", str(path))


def test_model_with_scrambled_metadata(tmp_path):
    path = tmp_path / "scrambled.gguf"
    with open(stator_process.model(), "rb") as whole:
        data = bytearray(whole.read(1 << 20))
    for at in range(64, len(data), 97):
        data[at] ^= 0x5A
    path.write_bytes(data)
    assert "scrambled.gguf" in refused("--model", str(path))


def test_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("serve", "--engine", "echo", "--port", port)
    assert done.returncode == 2
    assert port in done.stderr


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--prot", "80"], "--port"),
        (["--port", "http"], "--port"),
        (["--port", "70000"], "65535"),
        (["--engine", "gpt"], "echo"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["--max-running", "0"], "--max-running"),
    ],
)
def test_wrong_flag_says_what_would_be_right(flags, named):
    done = run("serve", *flags)
    assert done.returncode == 2
    assert named in done.stderr


def test_start_says_where_and_how(start_server):
    server = start_server(engine="echo", threads=1)
    log = wait_until(
        lambda: (text := server.log_path.read_text()) and "curl" in text and text, "the summary"
    )
    assert server.base_url in log


def test_sigterm_lets_a_running_stream_end(start_server):
    server = start_server(
        stator_process.model(),
        engine_threads=1,
        threads=1,
        context=2048,
        served_model_name="m",
    )
    with RawConnection(server) as connection:
        connection.send(post(CHAT, {**STORY, "max_tokens": 60}))
        connection.read_until(b"data: ")
        server.terminate()

        def refuses():
            try:
                with RawConnection(server, timeout=5) as late:
                    late.send(get("/live"))
                    return late.at_end()
            except OSError:
                return True

        wait_until(refuses, "new connections are refused")
        rest = connection.read_until(b"0\r\n\r\n")
        assert b"[DONE]" in rest
        assert rest.count(b"data: ") >= 55
    assert server.wait() == 0


def test_grace_bounds_the_end(start_server):
    server = start_server(
        engine="echo", threads=1, served_model_name="m", echo_step_us=20_000, grace="500ms"
    )
    with RawConnection(server) as connection:
        connection.send(post(CHAT, {**STORY, "max_tokens": 5000}))
        connection.read_until(b"data: ")
        server.terminate()
        # The stream is cut, and must not look like a whole answer.
        with pytest.raises(EOFError):
            connection.read_until(b"[DONE]")
    assert server.wait(10) in (0, 1)


def test_second_signal_ends_at_once(start_server):
    server = start_server(engine="echo", threads=1, served_model_name="m", echo_step_us=20_000)
    with RawConnection(server) as connection:
        connection.send(post(CHAT, {**STORY, "max_tokens": 5000}))
        connection.read_until(b"data: ")
        server.terminate()
        wait_until(lambda: server.get_status("/live") != 200, "the first signal was seen")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait(5) != 0


def test_idle_server_stops_at_once_and_frees_its_port(start_server):
    server = start_server(engine="echo", threads=1)
    with RawConnection(server) as idle:
        idle.send(get("/live"))
        assert idle.read_response().status == 200
        server.process.send_signal(signal.SIGINT)
        assert server.wait(10) == 0
        assert idle.at_end()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", server.port))


def test_engine_failure_inside_a_stream_is_told(start_server):
    server = start_server(engine="echo", threads=1, served_model_name="m", echo_fail_after=5)
    with RawConnection(server) as connection:
        connection.send(post(CHAT, {**STORY, "max_tokens": 50}))
        text = b""
        try:
            text = connection.read_until(b"0\r\n\r\n")
        except EOFError:
            text = connection.buffer
        assert b'"error"' in text
        assert b'"finish_reason":"length"' not in text


def test_engine_failure_of_a_whole_answer_is_an_error(start_server):
    server = start_server(engine="echo", threads=1, served_model_name="m", echo_fail_after=5)
    with RawConnection(server) as connection:
        connection.send(post(CHAT, {**STORY, "stream": False, "max_tokens": 50}))
        response = connection.read_response()
    assert response.status >= 500
    assert response.json()["error"]["type"] == "server_error"


def test_no_memory_grows_over_many_requests(echo):
    """A thousand requests on one connection leave no more behind than a hundred did."""

    def resident():
        status = pathlib.Path(f"/proc/{echo.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))

    request = post(CHAT, {**STORY, "model": "echo", "stream": False, "max_tokens": 8})

    def some(count):
        with RawConnection(echo) as connection:
            for _ in range(count):
                connection.send(request)
                assert connection.read_response().status == 200

    some(300)
    before = resident()
    some(1000)
    assert resident() < before + 2048
