"""The peer of `stator bench`: NVIDIA's aiperf, in a virtual environment of its own in the cache
folder."""

import hashlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

from peers.llama_server import cache_folder

REQUIREMENTS = pathlib.Path(__file__).resolve().parent / "aiperf-requirements.txt"
NAME = "aiperf 0.13.0"
INSTALL_SECONDS = 1800

# aiperf wants a tokenizer folder even where the server counts the tokens: one of bytes will do.
TOKENIZER = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {word: i for i, word in enumerate(["<|end|>", *words])}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(sys.argv[1])
"""


def ensure_installed():
    """The environment's folder; makes it where the cache has none."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_folder() / f"peer-aiperf-{key}"
    if (folder / ".complete").is_file():
        return folder
    print(f"installing {NAME} once (kept in the cache folder)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    pip += ["--quiet", "--only-binary", ":all:", "--require-hashes", "-r", str(REQUIREMENTS)]
    subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
    tokenizer = [str(folder / "bin" / "python"), "-c", TOKENIZER, str(folder / "tokenizer")]
    subprocess.run(tokenizer, check=True)
    (folder / ".complete").touch()
    return folder


def run(folder, server, model, prompts, rate, output_tokens, scratch):
    """Sends the prompts, one every 1/rate seconds, as streamed chats: TTFT, ITL (means, ms),
    requests answered, CPU seconds of all its processes."""
    scratch = pathlib.Path(scratch)
    source = scratch / "aiperf.jsonl"
    source.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts))
    fields = {"max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True}
    command = [str(folder / "bin" / "aiperf"), "profile", "--model", model]
    command += ["--url", server.base_url, "--endpoint-type", "chat", "--streaming"]
    command += ["--tokenizer", str(folder / "tokenizer"), "--use-server-token-count"]
    command += ["--input-file", str(source), "--custom-dataset-type", "single_turn"]
    command += ["--extra-inputs", json.dumps(fields)]
    command += ["--request-rate", str(rate), "--request-rate-mode", "constant"]
    command += ["--request-count", str(len(prompts)), "--artifact-dir", str(scratch / "aiperf")]
    command += ["--ui", "none"]
    environment = {**os.environ, "HOME": str(scratch)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    results = list((scratch / "aiperf").glob("**/profile_export_aiperf.json"))
    if done.returncode != 0 or len(results) != 1:
        raise RuntimeError(f"aiperf failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    figures = json.loads(results[0].read_text())
    return {
        "ttft": figures["time_to_first_token"]["avg"],
        "itl": figures["inter_token_latency"]["avg"],
        "answered": int(figures["request_count"]["avg"]),
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }
