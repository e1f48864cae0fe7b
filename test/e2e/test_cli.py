"""The other subcommands: version, config, chat, help."""

import re
import subprocess

import pytest
import stator_process


def run(*args, stdin=None, env=None, timeout=60):
    return subprocess.run(
        [stator_process.binary(), *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        input=stdin if stdin is not None else "",
        env=stator_process.child_environment(env),
    )


def test_version():
    done = run("version")
    assert done.returncode == 0
    assert re.search(r"stator \d+\.\d+", done.stdout)
    assert run("--version").stdout == done.stdout


@pytest.mark.parametrize(
    "args", [["--help"], ["serve", "--help"], ["chat", "--help"], ["config", "--help"]]
)
def test_help(args):
    done = run(*args)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5
    assert all(len(line) <= 120 for line in done.stdout.splitlines())


def test_serve_help_has_every_flag_that_config_knows():
    serve = run("serve", "--help").stdout
    flags = set(re.findall(r"--[a-z][a-z-]+", run("config").stdout))
    assert flags and flags <= set(re.findall(r"--[a-z][a-z-]+", serve))


def test_without_words_and_with_wrong_words():
    assert run().returncode in (0, 2)
    done = run("serv")
    assert done.returncode == 2
    assert "serve" in done.stderr


def test_config_shows_where_values_come_from(tmp_path):
    file = tmp_path / "stator.yaml"
    file.write_text("engine:\n  max_running: 5\n")
    done = run(
        "config",
        "--config",
        str(file),
        "--port",
        "1234",
        env={"STATOR_CONTEXT": "4096"},
    )
    assert done.returncode == 0, done.stderr
    lines = {}
    for line in done.stdout.splitlines():
        for key in ("max_running", "server.port", "engine.context", "max_waiting"):
            if key in line or "--" + key.replace("_", "-") in line:
                lines.setdefault(key, line)
    text = done.stdout
    assert "5" in text and "stator.yaml" in text
    assert "1234" in text and "STATOR_CONTEXT" in text


def test_config_check_accepts_a_good_file(tmp_path):
    file = tmp_path / "good.yaml"
    file.write_text("server:\n  port: 9000\nengine:\n  kind: echo\n")
    done = run("config", "check", str(file))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("server:\n  prot: 9000\n", "prot"),
        ("server:\n  port: 99999\n", "99999"),
        ("engine:\n  kind: gpt\n", "gpt"),
        ("server: [1, 2\n", "bad.yaml"),
        ("limits:\n  max_body_size: huge\n", "huge"),
    ],
)
def test_config_check_names_what_is_wrong(tmp_path, text, named):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    done = run("config", "check", str(file))
    assert done.returncode == 2
    assert named in done.stderr + done.stdout
    assert "bad.yaml" in done.stderr + done.stdout


def test_config_check_of_a_missing_file(tmp_path):
    done = run("config", "check", str(tmp_path / "absent.yaml"))
    assert done.returncode == 2
    assert "absent.yaml" in done.stderr


def test_chat_answers_one_question(server):
    limits = ["--temperature", "0", "--max-tokens", "24"]
    done = run(
        "chat",
        "--url",
        server.base_url,
        *limits,
        "What is the capital of France? Answer in one sentence.",
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_chat_without_a_server_says_so():
    done = run("chat", "--url", "http://127.0.0.1:9", "Hello")
    assert done.returncode in (1, 2)
    assert "127.0.0.1:9" in done.stderr


def test_environment_sets_options(start_server, tmp_path):
    server = stator_process.StatorServer(engine="echo", threads=1)
    try:
        server.start(env={"STATOR_SERVED_MODEL_NAME": "from-the-environment"})
        assert b"from-the-environment" in server.request("GET", "/v1/models")[2]
    finally:
        server.stop()


@pytest.mark.parametrize("command", ["serve", "frontend"])
def test_private_addresses_need_hosts_with_them(command):
    done = run(command, "--media-allow-private")
    assert done.returncode != 0
    for option in ("--media-allow-private", "--media-host"):
        assert option in done.stderr
    assert "--media-host" in run("config", "--media-allow-private").stderr
