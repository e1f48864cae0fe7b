"""API keys and the bind guard."""

import subprocess

import openai
import pytest
import stator_process
from conftest import openai_client

FIRST, SECOND = "sk-first-0123456789abcdef", "sk-second-0123456789abcdef"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"# the team's keys\n{FIRST}\n\n  {SECOND}  \n")
    keys.chmod(0o600)
    with stator_process.StatorServer(
        engine="echo", threads=1, served_model_name="echo", api_key_file=keys
    ) as server:
        yield server


@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_right_key(guarded, key):
    with openai_client(guarded, key) as client:
        assert client.models.list().data[0].id == "echo"


@pytest.mark.parametrize(
    "key",
    ["wrong", FIRST[:-1], FIRST + "x", FIRST.upper(), f"{FIRST},{SECOND}", "# the team's keys"],
)
def test_wrong_key(guarded, key):
    with openai_client(guarded, key) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.post("/chat/completions", body=HELLO, cast_to=object)
    assert caught.value.body["code"] == "invalid_api_key"
    assert key not in caught.value.body["message"]
    assert caught.value.response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": FIRST},
        {"Authorization": "Basic " + FIRST},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
    ],
)
def test_no_proper_key(guarded, headers):
    for method, path, body in [("POST", CHAT, HELLO), ("GET", "/v1/models", None)]:
        status, _, _ = guarded.request(method, path, body, headers)
        assert status == 401


def test_scheme_is_read_without_case(guarded):
    status, _, _ = guarded.request(
        "GET", "/v1/models", headers={"Authorization": f"bearer {FIRST}"}
    )
    assert status == 200


def test_health_and_liveness_need_no_key(guarded):
    assert guarded.get_status("/health") == 200
    assert guarded.get_status("/live") == 200


def test_keys_are_not_in_the_log(guarded):
    guarded.request("GET", "/v1/models", headers={"Authorization": f"Bearer {FIRST}"})
    log = guarded.log_path.read_text()
    assert FIRST not in log and SECOND not in log


def refused_start(*flags):
    done = subprocess.run(
        [stator_process.binary(), "serve", "--engine", "echo", "--port", "0", *flags],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env=stator_process.child_environment(),
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_open_address_without_keys_is_refused(host):
    message = refused_start("--host", host)
    assert host in message
    assert "--api-key-file" in message and "--allow-unauthenticated" in message


def test_empty_key_file_is_refused(tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("# nothing here\n")
    assert str(keys) in refused_start("--api-key-file", str(keys))


def test_missing_key_file_is_refused(tmp_path):
    assert "absent.txt" in refused_start("--api-key-file", str(tmp_path / "absent.txt"))
