"""Wrong requests: the status, the official client's error class, the field named, and the server
unharmed."""

import openai
import pytest
from conftest import openai_client
from raw_http import RawConnection, post

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def still_serves(client, model_id):
    """After every test here the server answers as before."""
    yield
    answer = client.chat.completions.create(model=model_id, messages=HELLO, max_tokens=1)
    assert answer.usage.completion_tokens == 1


def refused(client, model_id, kind=openai.BadRequestError, **fields):
    """Sends a chat with `fields` and returns the `error` object of the refusal."""
    body = {"model": model_id, "messages": HELLO, "max_tokens": 2, **fields}
    with pytest.raises(kind) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    error = caught.value.body
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("max_tokens", "many"),
        ("max_tokens", 1.5),
        ("max_tokens", 2**40),
        ("max_completion_tokens", -5),
        ("n", 0),
        ("n", -1),
        ("n", 100_000),
        ("n", "two"),
        ("temperature", -0.1),
        ("temperature", 2.5),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("min_p", 1.5),
        ("frequency_penalty", 3),
        ("presence_penalty", -3),
        ("repetition_penalty", -1),
        ("seed", "seed"),
        ("stop", 5),
        ("stop", [1]),
        ("stream", "yes"),
        ("stream_options", 1),
        ("logprobs", "yes"),
        ("top_logprobs", 1000),
        ("logit_bias", [1]),
        ("ignore_eos", "no"),
        ("messages", []),
        ("messages", "Hello"),
        ("messages", None),
    ],
)
def test_wrong_field_is_named(client, model_id, field, value):
    error = refused(client, model_id, **{field: value})
    assert error["type"] == "invalid_request_error"
    assert error["param"].split(".")[0].split("[")[0] == field
    assert field in error["message"]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "no role"},
        {"role": 5, "content": "x"},
        {"role": "user", "content": 7},
        {"role": "user", "content": [{"type": "text"}]},
        "Hello",
    ],
)
def test_wrong_message_is_named(client, model_id, message):
    error = refused(client, model_id, messages=[*HELLO, message])
    assert error["param"].startswith("messages")


def test_image_is_refused_with_a_reason(client, model_id):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    error = refused(client, model_id, messages=[{"role": "user", "content": [part]}])
    assert "image" in error["message"]


def test_messages_missing(client, model_id):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": model_id}, cast_to=object)
    assert caught.value.body["param"] == "messages"


def test_unknown_model(client):
    error = refused(client, "gpt-17", kind=openai.NotFoundError)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "gpt-17" in error["message"]


@pytest.mark.parametrize("model", [5, "", None, ["a"]])
def test_model_of_wrong_type(client, model):
    assert refused(client, model)["param"] == "model"


def test_over_long_prompt(client, model_id):
    long = [{"role": "user", "content": "word " * 4000}]
    error = refused(client, model_id, messages=long)
    assert error["code"] == "context_length_exceeded"
    assert "2048" in error["message"]


def test_prompt_plus_max_tokens_over_the_context(client, model_id):
    error = refused(client, model_id, max_tokens=5000)
    assert "2048" in error["message"]


@pytest.mark.parametrize(
    "prompt", ["", [], [[]], [1, "a"], [-1], [10**9], [1.5], {"a": 1}, 5, None, [["a"]]]
)
def test_wrong_prompt(client, model_id, prompt):
    with pytest.raises(openai.BadRequestError) as caught:
        body = {"model": model_id, "prompt": prompt, "max_tokens": 1}
        client.post("/completions", body=body, cast_to=object)
    assert caught.value.body["param"].split("[")[0] == "prompt"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}}",
        b"[]",
        b"null",
        b'"text"',
        b'{"messages": [}',
        b'{"model": "x", "messages": [], }',
        b"\xff\xfe\x00",
        b'{"messages": [{"role": "user", "content": "\xc3\x28"}]}',
        b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"a":' * 3000,
        b"[" * 100_000,
        b'{"max_tokens": 1e999}',
        b'{"max_tokens": 1180591620717411303424}',
        b'{"max_tokens": NaN}',
        b"{'messages': []}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_malformed_body(server, model_id, body):
    with RawConnection(server) as connection:
        connection.send(post(CHAT, body))
        response = connection.read_response()
        assert response.status == 400
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        # The body was read whole, so the connection is good for another request.
        connection.send(post(CHAT, {"model": model_id, "messages": HELLO, "max_tokens": 1}))
        assert connection.read_response().status == 200


def test_wrong_content_type(server, model_id):
    with RawConnection(server) as connection:
        request = post(CHAT, {"model": model_id, "messages": HELLO, "max_tokens": 1})
        connection.send(request.replace(b"application/json", b"application/xml"))
        assert connection.read_response().status in (200, 415)


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/v1/responses", "/v1/images/generations", "/v1/audio/speech"]
)
def test_openai_route_that_is_not_served(server, path):
    status, _, body = server.request("POST", path, {"input": "x"})
    assert status in (404, 501)
    assert path.encode() in body
    assert body.count(b"\n") <= 1


def test_unknown_path(server):
    status, headers, body = server.request("GET", "/v2/nowhere")
    assert status == 404
    assert headers["Content-Type"].startswith("application/json")
    assert b"/v2/nowhere" in body


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/health", "GET"),
    ],
)
def test_wrong_method(server, method, path, allowed):
    status, headers, _ = server.request(method, path)
    assert status == 405
    assert allowed in headers["Allow"]


def test_unknown_method(server):
    status, _, _ = server.request("BREW", "/v1/models")
    assert status in (400, 405, 501)


def test_unknown_model_by_get(client):
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-17")


def test_errors_carry_the_request_id(server):
    with openai_client(server) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="", messages=[], extra_headers={"x-request-id": "e-7"})
    assert caught.value.response.headers["x-request-id"] == "e-7"
