"""Streamed chats: the order of events, their sum, usage, and curl as the simplest client."""

import json
import subprocess

MESSAGES = [{"role": "user", "content": "Count from one to five in words."}]


def stream(client, model_id, **options):
    options = {"temperature": 0, "max_tokens": 20, **options}
    return list(
        client.chat.completions.create(model=model_id, messages=MESSAGES, stream=True, **options)
    )


def text_of(events, index=0):
    return "".join(c.delta.content or "" for e in events for c in e.choices if c.index == index)


def test_sum_of_pieces_is_the_whole(client, model_id):
    whole = client.chat.completions.create(
        model=model_id, messages=MESSAGES, temperature=0, max_tokens=20
    )
    events = stream(client, model_id)
    assert text_of(events) == whole.choices[0].message.content
    assert len(events) > 3


def test_order_of_events(client, model_id):
    events = stream(client, model_id)
    assert len({e.id for e in events}) == 1
    assert {e.object for e in events} == {"chat.completion.chunk"}
    assert events[0].choices[0].delta.role == "assistant"
    reasons = [c.finish_reason for e in events for c in e.choices]
    assert reasons[-1] in ("stop", "length")
    assert not any(reasons[:-1])
    assert all(e.usage is None for e in events)


def test_include_usage(client, model_id):
    events = stream(client, model_id, stream_options={"include_usage": True})
    *before, last = events
    assert last.choices == []
    assert last.usage.completion_tokens >= 1
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(e.usage is None for e in before)


def test_stop_string_never_leaks(client, model_id):
    whole = text_of(stream(client, model_id))
    stop = whole[6:12]
    events = stream(client, model_id, stop=stop)
    assert text_of(events) == whole[: whole.index(stop)]
    assert [c.finish_reason for e in events for c in e.choices][-1] == "stop"


def test_n_choices_are_interleaved_and_complete(client, model_id):
    events = stream(client, model_id, n=2, temperature=1.5, seed=3, max_tokens=8)
    assert text_of(events, 0) and text_of(events, 1)
    ends = [c.index for e in events for c in e.choices if c.finish_reason]
    assert sorted(ends) == [0, 1]


def test_streamed_logprobs(client, model_id):
    events = stream(client, model_id, max_tokens=5, logprobs=True, top_logprobs=2)
    tokens = [t for e in events for c in e.choices if c.logprobs for t in c.logprobs.content or []]
    assert len(tokens) == 5
    assert all(len(t.top_logprobs) == 2 for t in tokens)


def curl(server, payload):
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--include", "--max-time", "60"]
    command += ["-H", "Content-Type: application/json", "--data", json.dumps(payload)]
    done = subprocess.run(
        [*command, server.base_url + "/v1/chat/completions"],
        capture_output=True,
        text=True,
        timeout=70,
    )
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    return head, body


def test_curl_reads_a_stream(server, model_id):
    head, body = curl(
        server, {"model": model_id, "messages": MESSAGES, "stream": True, "max_tokens": 8}
    )
    assert head.startswith("HTTP/1.1 200")
    assert "content-type: text/event-stream" in head.lower()
    blocks = [b for b in body.split("\n\n") if b]
    assert blocks[-1] == "data: [DONE]"
    assert all(b.startswith("data: {") for b in blocks[:-1])
    for block in blocks[:-1]:
        json.loads(block.removeprefix("data: "))
