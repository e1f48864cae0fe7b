"""Clients that mean harm, as bytes on a socket: limits hold, memory comes back, others are
served."""

import pathlib
import re
import socket

import pytest
from conftest import read_metrics, wait_until
from raw_http import RawConnection, get, post

CHAT = "/v1/chat/completions"
ECHO = {"engine": "echo", "threads": 1, "served_model_name": "echo"}
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest.fixture(autouse=True)
def still_serves(echo):
    yield
    with RawConnection(echo) as connection:
        connection.send(post(CHAT, HELLO))
        assert connection.read_response().status == 200


def memory_mib(server, key="VmRSS"):
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(key + r":\s+(\d+) kB", status).group(1)) / 1024


def reset_peak(server):
    pathlib.Path(f"/proc/{server.pid}/clear_refs").write_text("5")


def refused_and_closed(server, request, statuses):
    with RawConnection(server) as connection:
        connection.send(request)
        response = connection.read_response()
        assert response.status in statuses, response
        assert response.headers.get("connection") == "close"
        assert response.json()["error"]["message"]
        assert connection.at_end()
    return response


def test_body_of_200_mb_is_refused_unread(echo):
    before = memory_mib(echo)
    reset_peak(echo)
    total = 200 * 1024 * 1024
    head = f"{POST}Content-Type: application/json\r\nContent-Length: {total}\r\n\r\n"
    with RawConnection(echo) as connection:
        connection.send(head)
        assert connection.read_response().status == 413
        block, sent = b" " * (1 << 20), 0
        while sent < total and connection.try_send(block):
            sent += len(block)
        assert connection.at_end()
    assert memory_mib(echo, "VmHWM") < before + 8
    wait_until(lambda: memory_mib(echo) < before + 8, "memory back to where it was")


def test_chunked_body_of_200_mb_is_refused_at_the_limit(echo):
    """What comes after the refusal may be read, so that the client sees it, but is not kept."""
    before = memory_mib(echo)
    reset_peak(echo)
    head = f"{POST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    block = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with RawConnection(echo) as connection:
        connection.send(head)
        for _ in range(36):  # four more than the limit
            connection.send(block)
        assert connection.read_response().status == 413
        sent = 0
        while sent < 164 and connection.try_send(block):
            sent += 1
        assert connection.at_end()
    # The limit of 32 MiB, and as much again while the buffer grows.
    assert memory_mib(echo, "VmHWM") < before + 100
    wait_until(lambda: memory_mib(echo) < before + 8, "memory back to where it was")


def test_many_large_bodies_do_not_add_up(echo):
    """Twenty bodies of 30 MiB, each under the limit of one, one after the other: no growth."""
    text = "x" * (30 * 1024 * 1024)
    body = {**HELLO, "messages": [{"role": "user", "content": text}], "max_tokens": 1}
    request = post(CHAT, body)
    peaks = []
    for _ in range(6):
        with RawConnection(echo) as connection:
            connection.send(request)
            assert connection.read_response().status == 400
        peaks.append(memory_mib(echo))
    wait_until(lambda: memory_mib(echo) <= peaks[0] + 64, "memory does not grow with every body")


def test_header_flood(echo):
    flood = [f"X-Flood-{i}: {i}" for i in range(200)]
    refused_and_closed(echo, get("/health", flood), [431])


def test_huge_header(echo):
    refused_and_closed(echo, get("/health", ["X-Huge: " + "a" * 100_000]), [431])


def test_huge_request_line(echo):
    refused_and_closed(echo, get("/" + "a" * 100_000), [414, 431])


def test_endless_header_is_refused_at_the_limit(echo):
    before = memory_mib(echo)
    reset_peak(echo)
    with RawConnection(echo) as connection:
        connection.send("GET /health HTTP/1.1\r\nHost: x\r\nX-Endless: ")
        connection.send(b"a" * 65536)
        assert connection.read_response().status == 431
        sent = 0
        while sent < 256 and connection.try_send(b"a" * 65536):
            sent += 1
        assert connection.at_end()
    assert memory_mib(echo, "VmHWM") < before + 8


POST = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n"
SECOND = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = "0\r\n\r\n" + SECOND


@pytest.mark.parametrize(
    "request_text",
    [
        f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}",
        f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{SMUGGLED}",
        f"{POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{SMUGGLED}",
        f"{POST}Content-Length: -1\r\n\r\n{SMUGGLED}",
        f"{POST}Content-Length: 99999999999999999999\r\n\r\n{SMUGGLED}",
        f"{POST}Content-Length: 0x5\r\n\r\n{SMUGGLED}",
        f"{POST}Transfer-Encoding: gzip, chunked, x\r\n\r\n{SMUGGLED}",
        f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n{SMUGGLED}",
        f"{POST}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        f"GET /health HTTP/1.1\r\nHost: x\r\n folded: yes\r\n\r\n{SECOND}",
        f"GET /health HTTP/1.1\r\nHost : x\r\n\r\n{SECOND}",
        f"GET /health HTTP/1.1\nHost: x\n\n{SECOND}",
        f"GET /health HTTP/1.1\r\n\r\n{SECOND}",
        f"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n{SECOND}",
        f"GET /health HTTP/9.9\r\nHost: x\r\n\r\n{SECOND}",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=[
        "CL+TE",
        "TE+CL",
        "two lengths",
        "negative length",
        "overflowing length",
        "hex length",
        "unknown coding",
        "bad chunk size",
        "overflowing chunk size",
        "folded header",
        "space before colon",
        "bare LF",
        "no host",
        "two hosts",
        "version",
        "TLS hello",
    ],
)
def test_ambiguous_request_gets_one_answer(echo, request_text):
    """One clear answer, then the end: what follows is never taken for a request of its own."""
    with RawConnection(echo) as connection:
        connection.send(request_text.encode("latin-1"))
        response = connection.read_response()
        assert 400 <= response.status < 600
        assert response.headers.get("connection") == "close"
        assert connection.at_end()
    samples = read_metrics(echo).samples
    assert not any("smuggled" in str(labels) for _, labels, _ in samples)


def test_nul_in_header_is_refused(echo):
    refused_and_closed(echo, get("/health", ["X-Nul: a\x00b"]), [400])


def test_pipelined_requests_are_answered_in_order(echo):
    with RawConnection(echo) as connection:
        connection.send(get("/live") + post(CHAT, HELLO) + get("/v2/nowhere") + get("/live"))
        assert [connection.read_response().status for _ in range(4)] == [200, 200, 404, 200]


def test_pipelining_after_an_error_of_the_api(echo):
    """A request that is good HTTP and wrong for the API does not spoil the connection."""
    with RawConnection(echo) as connection:
        connection.send(post(CHAT, b"{") + post(CHAT, HELLO))
        assert connection.read_response().status == 400
        assert connection.read_response().status == 200


def test_pipelining_after_a_protocol_error(echo):
    with RawConnection(echo) as connection:
        connection.send(b"NOT HTTP AT ALL\r\n\r\n" + get("/live"))
        assert connection.read_response().status == 400
        assert connection.at_end()


def test_request_byte_by_byte(echo):
    with RawConnection(echo) as connection:
        for byte in post(CHAT, HELLO):
            connection.send(bytes([byte]))
        assert connection.read_response().status == 200


def test_slow_headers_time_out_while_others_are_served(start_server):
    server = start_server(**ECHO, header_timeout="500ms")
    with RawConnection(server) as slow, RawConnection(server) as other:
        slow.send("GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        other.send(post(CHAT, HELLO))
        assert other.read_response().status == 200
        assert slow.read_response().status == 408
        assert slow.at_end()


def test_slow_body_times_out(start_server):
    server = start_server(**ECHO, body_timeout="500ms")
    with RawConnection(server) as slow:
        slow.send(f"{POST}Content-Length: 1000\r\n\r\n{{")
        assert slow.read_response().status == 408
        assert slow.at_end()


def test_idle_connection_is_closed(start_server):
    server = start_server(**ECHO, idle_timeout="300ms")
    with RawConnection(server) as idle:
        idle.send(get("/live"))
        assert idle.read_response().status == 200
        assert idle.at_end()


def test_reader_that_stops_is_reset(start_server):
    """A client that takes nothing can hold max_unsent_output, not more, and its request ends."""
    server = start_server(
        **ECHO, max_unsent_output="64KiB", write_timeout="1s", max_sequence=200_000
    )
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": "abcdefgh" * 64}],
        "max_tokens": 100_000,
        "stream": True,
    }
    with RawConnection(server) as stuck:
        stuck.send(post(CHAT, body))
        assert stuck.read_head()[0] == 200
        stuck.read_until(b"data: ")
        wait_until(lambda: running(server) == 0, "the slot is free")
        with pytest.raises(EOFError):
            stuck.read_until(b"[DONE]")


def running(server):
    return read_metrics(server).sum("stator_engine_running")


def test_connection_limit(start_server):
    server = start_server(**ECHO, max_connections=4)
    held = [RawConnection(server) for _ in range(4)]
    try:
        for connection in held:
            connection.send(get("/live"))
            assert connection.read_response().status == 200
        with RawConnection(server) as fifth:
            fifth.send(get("/live"))
            assert fifth.read_response().status == 503
    finally:
        for connection in held:
            connection.socket.close()

    def free_again():
        with RawConnection(server) as connection:
            connection.send(get("/live"))
            return connection.read_response().status == 200

    wait_until(free_again, "places are free again")


def test_half_closed_client_gets_its_answer_or_an_end(echo):
    with RawConnection(echo) as connection:
        connection.send(post(CHAT, HELLO))
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            assert connection.read_response().status == 200
        except EOFError:
            assert connection.at_end()
