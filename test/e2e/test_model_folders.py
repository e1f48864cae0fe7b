"""Models from Hugging Face folders (`--model-dir`), alone and through a fleet, and requests passed on to other servers."""

import json
import subprocess

import pytest
from conftest import openai_client, wait_until
from stator_process import StatorFrontend, StatorServer, StatorWorker, binary, child_environment, model

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_alphabet():
    """How byte-level vocabularies write the 256 bytes (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = {b: chr(b) for b in plain}
    for n, b in enumerate(sorted(set(range(256)) - set(plain))):
        spelled[b] = chr(256 + n)
    return [spelled[b] for b in range(256)]


def write_folder(folder, **config):
    """A whole folder with a byte-level tokenizer of 256 bytes, two merges and two special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {c: i for i, c in enumerate(byte_alphabet())}
    for merged in ("he", "ll"):
        vocabulary[merged] = len(vocabulary)
    special = ["<|im_start|>", "<|im_end|>"]
    added = [
        {
            "id": len(vocabulary) + i,
            "content": text,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, text in enumerate(special)
    ]
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **byte_level},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["h e", "l l"]},
    }
    files = {
        "tokenizer.json": tokenizer,
        "config.json": {"model_type": "tiny", "max_position_embeddings": 512, **config},
        "tokenizer_config.json": {
            "eos_token": "<|im_end|>",
            "model_max_length": 1000000000000000019884624838656,
        },
        "generation_config.json": {"eos_token_id": 259, "temperature": 0.5},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "Tiny-Model")


def mock_options(folder):
    return {"engine": "mock", "model_dir": str(folder), "mock_preset": "constant-10ms"}


def chat(server, **more):
    body = {"messages": [{"role": "user", "content": "hello<|im_end|>"}], "max_tokens": 4, **more}
    status, _, answer = server.request("POST", "/v1/chat/completions", body)
    return status, json.loads(answer)


# "<|im_start|>user\n" 6, "he" "ll" "o" 3, the written "<|im_end|>" 10 bytes, the real one, "\n",
# and "<|im_start|>assistant\n" 11.
PROMPT_TOKENS = 6 + 3 + 10 + 1 + 1 + 11


def test_a_folder_is_served(folder):
    with StatorServer(**mock_options(folder), max_sequence=512) as server:
        models = json.loads(server.request("GET", "/v1/models")[2])["data"]
        assert [m["id"] for m in models] == ["tiny-model"]
        status, answer = chat(server, model="tiny-model")
        assert status == 200
        assert answer["usage"]["prompt_tokens"] == PROMPT_TOKENS
        client = openai_client(server)
        got = client.completions.create(
            model="tiny-model", prompt="hello", max_tokens=2, extra_body={"return_token_ids": True}
        )
        assert got.choices[0].prompt_token_ids == [256, 257, ord("o")]


def test_a_frontend_gets_the_tokenizer_from_the_worker(folder, tmp_path):
    with (
        StatorWorker(tmp_path, "w", **mock_options(folder)),
        StatorFrontend(tmp_path) as frontend,
    ):
        frontend.wait_workers("w")
        # The files may go: the frontend has what it needs.
        (folder / "tokenizer.json").unlink()
        status, answer = chat(frontend, model="tiny-model")
        assert status == 200
        assert answer["usage"]["prompt_tokens"] == PROMPT_TOKENS


def refusal(*arguments):
    command = [binary(), "serve", "--port", "0", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=child_environment()
    )
    assert done.returncode != 0
    return done.stderr


def test_folders_that_cant_be_used(folder, tmp_path):
    mock = ("--engine", "mock", "--model-dir")
    assert "does not exist" in refusal(*mock, str(tmp_path / "nowhere"))
    assert "no single .gguf" in refusal("--model-dir", str(folder))
    (folder / "tokenizer.json").write_text('{"model":{"type":"BPE"')
    assert "tokenizer.json" in refusal(*mock, str(folder))
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(*mock, str(folder))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    assert "max_position_embeddings" in refusal(*mock, str(folder))


def test_a_tokenizer_of_another_model_is_refused(folder):
    said = refusal("--model-dir", str(folder), "--model", model())
    assert "of different models" in said


def test_requests_are_passed_on(tmp_path):
    with (
        StatorServer(engine="echo", served_model_name="far") as upstream,
        StatorFrontend(tmp_path, upstream=upstream.base_url) as frontend,
    ):
        wait_until(
            lambda: b'"far"' in frontend.request("GET", "/v1/models")[2], "the upstream's model"
        )
        client = openai_client(frontend)
        messages = [{"role": "user", "content": "passed on"}]
        whole = client.chat.completions.create(model="far", messages=messages)
        assert "passed on" in whole.choices[0].message.content
        stream = client.chat.completions.create(model="far", messages=messages, stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        assert text == whole.choices[0].message.content
        # The upstream's own refusals come as they are.
        status, answer = chat(frontend, model="far", temperature=9)
        assert status == 400 and answer["error"]["param"] == "temperature"
        upstream.kill()
        status, answer = chat(frontend, model="far")
        assert status == 503, answer
