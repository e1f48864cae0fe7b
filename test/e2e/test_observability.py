"""What operators look at: models, health, metrics, request ids, the access log, CORS."""

import json
import re

import pytest
from conftest import read_metrics, wait_until

CHAT = "/v1/chat/completions"


def chat(server, model_id, headers=None, **fields):
    body = {
        "model": model_id,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 4,
        "temperature": 0,
        **fields,
    }
    return server.request("POST", CHAT, body, headers)


def test_models_list(client):
    (model,) = client.models.list().data
    assert model.object == "model"
    assert re.fullmatch(r"[a-z0-9._-]+", model.id)
    assert model.created > 0
    assert model.owned_by
    assert model.model_extra["context_length"] == 2048
    assert client.models.retrieve(model.id).id == model.id


def test_health(server):
    status, headers, body = server.request("GET", "/health")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    health = json.loads(body)
    assert health["status"] in ("ok", "ready", "healthy")
    assert re.match(r"\d+\.\d+", health["version"])
    assert health["commit"]


def test_liveness(server):
    assert server.get_status("/live") == 200


def test_metrics_count_requests_and_tokens(server, model_id):
    before = read_metrics(server)
    status, _, body = chat(server, model_id)
    assert status == 200
    usage = json.loads(body)["usage"]
    after = read_metrics(server)

    def grown(name, **labels):
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert grown("stator_http_requests_total", route=CHAT) == 1
    assert grown("stator_engine_model_cpu_seconds_total") > 0
    computed = grown("stator_engine_prefill_tokens_total")
    reused = grown("stator_engine_cached_tokens_total")
    assert computed + reused == usage["prompt_tokens"]


def test_metrics_are_typed(server):
    metrics = read_metrics(server)
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics.names()}
    assert families <= set(metrics.types) | metrics.names()
    assert {name for name in metrics.names() if not name.startswith("stator_")} <= {
        n for n in metrics.names() if n.startswith("process_")
    }


@pytest.mark.parametrize("given", ["abc-123", "7f2c1a", "a" * 64])
def test_request_id_comes_back(server, model_id, given):
    _, headers, _ = chat(server, model_id, {"x-request-id": given})
    assert headers["x-request-id"] == given


def test_request_id_is_made_where_there_is_none(server, model_id):
    ids = {chat(server, model_id)[1]["x-request-id"] for _ in range(3)}
    assert len(ids) == 3 and all(ids)


@pytest.mark.parametrize(
    "given", ["a" * 5000, "a b\tc", '"quoted"', "schlüssel".encode().decode("latin-1")]
)
def test_unfit_request_id_is_replaced_or_returned_whole(server, model_id, given):
    status, headers, _ = chat(server, model_id, {"x-request-id": given})
    assert status == 200
    assert headers["x-request-id"] == given or re.fullmatch(
        r"[\x21-\x7e]{1,256}", headers["x-request-id"]
    )


def test_client_sees_the_request_id(client, model_id):
    answer = client.chat.completions.create(
        model=model_id,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=1,
        extra_headers={"x-request-id": "from-the-client"},
    )
    assert answer._request_id == "from-the-client"


def test_one_access_log_line_per_request(server, model_id):
    chat(server, model_id, {"x-request-id": "log-me-once"})

    def lines():
        return [x for x in server.log_path.read_text().splitlines() if "log-me-once" in x]

    (line,) = wait_until(lines, "the line is written")
    assert "200" in line and CHAT in line


def test_prompt_text_is_not_logged(server, model_id):
    chat(server, model_id, messages=[{"role": "user", "content": "xylophone-secret"}])
    assert "xylophone-secret" not in server.log_path.read_text()


def test_cors_is_off_unless_asked_for(echo, start_server):
    origin = {"Origin": "https://app.example"}
    _, headers, _ = echo.request("GET", "/v1/models", headers=origin)
    assert "Access-Control-Allow-Origin" not in headers
    open_server = start_server(engine="echo", threads=1, cors_origin="https://app.example")
    _, headers, _ = open_server.request("GET", "/v1/models", headers=origin)
    assert headers["Access-Control-Allow-Origin"] == "https://app.example"
    status, headers, _ = open_server.request(
        "OPTIONS",
        CHAT,
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,authorization",
        },
    )
    assert status in (200, 204)
    assert "POST" in headers["Access-Control-Allow-Methods"]
    other = {"Origin": "https://elsewhere.example"}
    _, headers, _ = open_server.request("GET", "/v1/models", headers=other)
    assert headers.get("Access-Control-Allow-Origin") != "https://elsewhere.example"
