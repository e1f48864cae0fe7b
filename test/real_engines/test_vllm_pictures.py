"""Pictures to vLLM as it is: one server that encodes, one for prompts, one for output."""

import base64
import json
import pathlib
import shutil
import tempfile

import pytest
import stator_process
import vllm_cpu
from test_vllm import PATIENCE_S

MOST = 12


@pytest.fixture(scope="module")
def seeing():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ec-"))
    made = {
        "encode": vllm_cpu.VllmCpu(
            "test-vl-encode", events=False, role="encode", pictures=True, ec_folder=folder
        ),
        "prefill": vllm_cpu.VllmCpu("test-vl-prefill", role="prefill", pictures=True, ec_folder=folder),
        "decode": vllm_cpu.VllmCpu("test-vl-decode", role="decode", pictures=True),
    }
    try:
        with vllm_cpu.running(*made.values()):
            made["folder"] = folder
            yield made
    except vllm_cpu.Unavailable as why:
        pytest.skip(f"no real vLLM here: {why}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pictures():
    folder = vllm_cpu.model_folder(pictures=True)
    return {n: (folder / f"{n}.png").read_bytes() for n in ("a", "b")}


def chat_of(names, text):
    every = pictures()
    parts = []
    for name in names:
        url = "data:image/png;base64," + base64.b64encode(every[name]).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {
        "model": "tinyvl",
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
        "max_tokens": MOST,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }


def ask(server, body):
    status, _, data = server.request("POST", "/v1/chat/completions", body, timeout=PATIENCE_S)
    assert status == 200, data
    answer = json.loads(data)
    return answer["choices"][0]["token_ids"], answer["usage"]["prompt_tokens"]


CASES = [("a",), ("b",), ("a", "b"), ("b", "a"), ("a", "a")]


def test_pictures_to_one_server(seeing, start):
    """As the server itself answers to the same chat."""
    server = start(
        stator_process.StatorServer,
        engine=[f"vllm={seeing['decode'].url}"],
        model_dir=vllm_cpu.model_folder(pictures=True),
    )
    for names in CASES:
        body = chat_of(names, f"describe {' and '.join(names)} here")
        direct = seeing["decode"].post("/v1/chat/completions", body)
        wanted = direct["choices"][0]["token_ids"], direct["usage"]["prompt_tokens"]
        assert ask(server, body) == wanted, names


def test_encoder_prompt_and_output_apart(seeing, start):
    for role in ("encode", "prefill", "decode"):
        start(
            lambda folder, role=role: stator_process.StatorWorker(
                folder,
                role,
                engine=f"vllm={seeing[role].url}",
                engine_connector="nixl",
                role=role,
                block_tokens=vllm_cpu.BLOCK,
                model_dir=vllm_cpu.model_folder(pictures=True),
            )
        )
    door = start(stator_process.StatorFrontend, router_disaggregation="always")
    door.wait_workers("encode", "prefill", "decode")
    for names in CASES:
        body = chat_of(names, f"tell me of {' and '.join(names)}")
        before = seeing["decode"].transferred()
        tokens, size = ask(door, body)
        assert seeing["decode"].transferred() - before == size
        seeing["decode"].forget_prefixes()  # what was fetched
        direct = seeing["decode"].post("/v1/chat/completions", body)
        assert tokens == direct["choices"][0]["token_ids"], names
    # Each picture was encoded where it should be.
    assert len(list(seeing["folder"].glob("*/encoder_cache.safetensors"))) == 2
