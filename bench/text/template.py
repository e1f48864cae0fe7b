"""Chat templates through our interface against minijinja called from Rust."""

import json
import pathlib
import tempfile

import parts
from harness.results import paired_row

PEER = "minijinja 3.1.0 called from Rust"
SHAPES = ((2, 160), (2, 1600), (50, 160), (50, 1600))  # messages, bytes of each


def run(args):
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        english = dict(parts.texts(folder, 200_000))["English"].read_text()
        for model in ("llama3_1", "qwen3"):
            config = json.loads((args.tokenizers / model / "tokenizer_config.json").read_text())
            source = folder / f"{model}.jinja"
            source.write_text(config["chat_template"])
            for count, size in SHAPES:
                context = folder / "context.json"
                context.write_text(json.dumps(conversation(english, count, size)))
                mine, theirs = parts.by_turns(args, "template", source, context)
                ours, peer = ([r["seconds"] * 1e6 for r in side] for side in (mine, theirs))
                rows.append(paired_row(f"{model}'s template, {count} messages of {size} bytes",
                                       "us CPU", ours, peer, PEER, "<= 1.15",
                                       "both from the request's JSON"))
    return rows


def conversation(text, count, size):
    roles = ["system"] + ["user", "assistant"] * count
    messages = [{"role": roles[i], "content": text[i * size : (i + 1) * size]}
                for i in range(count)]
    return {"messages": messages, "add_generation_prompt": True}
