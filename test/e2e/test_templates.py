"""Published chat templates: we render what Jinja2 does, set up as Transformers sets it up."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import conversations
import pytest

FOLDER = os.environ.get("STATOR_CHAT_TEMPLATES")
TOKENIZERS = os.environ.get("STATOR_TOKENIZERS")
ROOT = pathlib.Path(__file__).parents[2]
BOS, EOS = "<s>", "</s>"
# Where a template loops over a null content, ours goes on: clients send one beside calls.
NONE_IS_EMPTY = "'NoneType' object is not iterable"

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="needs published templates: ./dev test sets STATOR_CHAT_TEMPLATES"
)

# Notations that a template shows, by the beginning of its name.
FORMATS = {
    "cohere": ("", ""),
    "deepseek_r1_distill": ("deepseek_v3", "deepseek_r1"),
    "deepseekv3": ("deepseek_v3", "deepseek_r1"),
    "gemma4": ("gemma4", "gemma4"),
    "glm4moe": ("glm45", "glm45"),
    "gptoss": ("harmony", "gpt_oss"),
    "lfm2_v2": ("lfm2", ""),
    "llama3_1": ("llama3_json", ""),
    "llama3_2": ("llama3_json", ""),
    "nemotron_3_nano": ("qwen3_coder", "nemotron3"),
    "qwen2_5.": ("hermes", ""),
    "qwen3_vl.": ("hermes", ""),
    "qwen3.": ("hermes", "qwen3"),
    "qwen3_instruct_2507": ("hermes", ""),
    "qwen3_5_think": ("qwen3_coder", "qwen3"),
    "smolvlm": ("", ""),
}


def templates():
    """Names and sources; a tokenizer's own template comes from its configuration."""
    found = {}
    if FOLDER:
        for path in sorted(pathlib.Path(FOLDER, "templates").glob("*.jinja")):
            found[path.name] = path.read_text()
    if TOKENIZERS:
        for path in sorted(pathlib.Path(TOKENIZERS).glob("*/tokenizer_config.json")):
            source = json.loads(path.read_text()).get("chat_template")
            if isinstance(source, str):
                found[f"{path.parent.name} (tokenizer)"] = source
    return found


SOURCES = templates()


@pytest.fixture(scope="session")
def jinja():
    """test/data/templates/render_expected.py, which sets Jinja2 up."""
    if str(pathlib.Path(FOLDER, "python")) not in sys.path:
        sys.path.append(str(pathlib.Path(FOLDER, "python")))
    file = ROOT / "test/data/templates/render_expected.py"
    spec = importlib.util.spec_from_file_location("render_expected", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Renderer:
    """Drives tools/render_template."""

    def __init__(self):
        build = os.environ.get("STATOR_BUILD")
        if build is None:
            build = pathlib.Path(os.environ["STATOR_BIN"]).resolve().parents[2]
        self._process = subprocess.Popen(
            [pathlib.Path(build) / "tools" / "render_template"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def render(self, source, context, now):
        request = {"template": source, "bos": BOS, "eos": EOS, "context": context}
        request["unix_seconds"] = now
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"render_template ended with status {self._process.wait(timeout=10)}"
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def renderer():
    r = Renderer()
    yield r
    r.close()


@pytest.mark.parametrize("name", SOURCES or ["none"])
def test_renders_as_jinja_does(name, jinja, renderer):
    source = SOURCES[name]
    template = jinja.environment(jinja.NOW).from_string(source)
    rendered = 0
    for what, context in conversations.contexts():
        try:
            wanted = template.render(bos_token=BOS, eos_token=EOS, **context)
        except Exception as e:  # the template's own refusal, or a fault of its
            wanted = e
        ours = renderer.render(source, context, jinja.NOW)
        if isinstance(wanted, str):
            assert ours.get("text", ours.get("error")) == wanted, what
            rendered += 1
        elif type(wanted).__name__ == "TemplateError":
            assert wanted.message in ours.get("error", ""), what
        elif NONE_IS_EMPTY not in str(wanted):
            assert "error" in ours, f"{what}: Jinja2 says {wanted!r}"
    assert rendered >= 20, "most conversations can be rendered"


def test_there_are_many_families():
    assert len({name.split(".")[0].split(" ")[0] for name in SOURCES}) >= 15


@pytest.mark.parametrize("prefix", FORMATS)
def test_notations_are_recognised(prefix, renderer):
    names = [n for n in SOURCES if n.startswith(prefix) and n.endswith(".jinja")]
    assert names
    for name in names:
        found = renderer.render(SOURCES[name], {}, 0)["format"]
        assert (found["tools"], found["reasoning"]) == FORMATS[prefix], name
