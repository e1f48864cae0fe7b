"""Answers that must look a certain way: JSON by a schema, a regex, a choice, a grammar."""

import concurrent.futures
import json
import random
import re
import time
import urllib.request
from typing import Literal

import fastjsonschema
import openai
import pydantic
import pytest
import stator_process
from answers import exchange, stream_completion
from conftest import openai_client, read_metrics, wait_until
from metrics_text import Metrics
from schemas import random_schema

ASK = [{"role": "user", "content": "Describe a person as JSON."}]


class Strict(pydantic.BaseModel):
    """Else the schema allows more properties, and a model at a high temperature invents them."""

    model_config = pydantic.ConfigDict(extra="forbid")


class Pet(Strict):
    kind: Literal["cat", "dog", "fish"]
    legs: int = pydantic.Field(ge=0, le=8)


class Person(Strict):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=0, le=130)
    married: bool
    pets: list[Pet] = pydantic.Field(max_length=2)


def chat(client, model_id, **fields):
    fields = {"messages": ASK, "max_tokens": 200, "temperature": 0, **fields}
    return client.chat.completions.create(model=model_id, **fields)


def by_schema(schema, name="answer"):
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def test_parse_gives_an_object_of_the_clients_class(client, model_id):
    answer = client.chat.completions.parse(
        model=model_id, messages=ASK, response_format=Person, max_tokens=300, temperature=0
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Person)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.5, "seed": 7},
        {"temperature": 1, "seed": 3, "top_p": 0.5, "frequency_penalty": 1.5},
        {"temperature": 0.8, "seed": 1, "extra_body": {"repetition_penalty": 1.5, "top_k": 5}},
        {"temperature": 0, "logit_bias": {"0": -100}},
    ],
)
def test_any_sampling_obeys_the_schema(client, model_id, sampling):
    answer = chat(client, model_id, response_format=by_schema(Person.model_json_schema()), n=2,
                  **sampling)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        Person.model_validate_json(choice.message.content)


def test_json_object_is_any_object(client, model_id):
    answer = chat(client, model_id, response_format={"type": "json_object"}, max_tokens=400)
    text = answer.choices[0].message.content
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    else:
        assert answer.choices[0].finish_reason == "length" and text.lstrip().startswith("{")


def test_a_stream_is_the_same_text(client, model_id):
    fields = {"response_format": by_schema(Person.model_json_schema())}
    whole = chat(client, model_id, **fields).choices[0].message.content
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in chat(client, model_id, stream=True, **fields)
        if chunk.choices
    ]
    assert len(pieces) > 5
    Person.model_validate_json("".join(pieces))
    assert json.loads("".join(pieces)).keys() == json.loads(whole).keys()


EXTRA = [
    ({"guided_regex": r"\d{3}-\d{4}"}, lambda t: re.fullmatch(r"\d{3}-\d{4}", t)),
    ({"guided_choice": ["crimson", "azure"]}, lambda t: t in ("crimson", "azure")),
    ({"structured_outputs": {"choice": ["no/way", "a.b"]}}, lambda t: t in ("no/way", "a.b")),
    ({"structured_outputs": {"regex": "[ab]{4}"}}, lambda t: re.fullmatch("[ab]{4}", t)),
    ({"guided_json": {"type": "integer", "minimum": 10, "maximum": 20}},
     lambda t: 10 <= int(t) <= 20),
    ({"guided_json": {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3},
      "guided_whitespace_pattern": "\n"}, lambda t: len(json.loads(t)) == 3 and " " not in t),
    ({"guided_grammar": 'start: NUM ("+" NUM){2}\nNUM: /[0-9]{1,3}/'},
     lambda t: re.fullmatch(r"\d{1,3}\+\d{1,3}\+\d{1,3}", t)),
    ({"regex": "yes|no"}, lambda t: t in ("yes", "no")),
    ({"json_schema": '{"const": "x"}'}, lambda t: json.loads(t) == "x"),
]


@pytest.mark.parametrize("extra,fits", EXTRA, ids=[next(iter(e)) + str(i) for i, (e, _) in
                                                  enumerate(EXTRA)])
def test_the_names_of_other_servers(client, model_id, extra, fits):
    answer = chat(client, model_id, extra_body=extra, max_tokens=40)
    assert fits(answer.choices[0].message.content), answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    answer = client.completions.create(
        model=model_id, prompt="The", max_tokens=40, temperature=1, seed=5, extra_body=extra
    )
    assert fits(answer.choices[0].text), answer.choices[0].text


BAD = [
    ({"response_format": by_schema({"type": "strnig"})}, "response_format.json_schema.schema",
     "strnig"),
    ({"response_format": by_schema({"type": "string", "const": 5})},
     "response_format.json_schema.schema", "nsatisfiable"),
    ({"response_format": by_schema({"$ref": "http://127.0.0.1:1/x.json"})},
     "response_format.json_schema.schema", "127.0.0.1"),
    ({"response_format": by_schema({"$ref": "file:///etc/hostname"})},
     "response_format.json_schema.schema", "hostname"),
    ({"response_format": {"type": "grammar"}}, "response_format.type", "grammar"),
    ({"guided_regex": "a(b"}, "guided_regex", "regex"),
    ({"guided_regex": "(?=a)b"}, "guided_regex", "look-around"),
    ({"guided_grammar": "start: missing"}, "guided_grammar", "missing"),
    ({"grammar": 'root ::= "a"'}, "grammar", "GBNF"),
    ({"guided_choice": []}, "guided_choice", "array"),
    ({"guided_choice": ["a"], "guided_regex": "a"}, "guided_choice", "both"),
    ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag", "served"),
]


@pytest.mark.parametrize("fields,param,words", BAD, ids=[str(i) for i in range(len(BAD))])
@pytest.mark.parametrize("stream", [False, True])
def test_what_can_not_be_used_is_a_400_that_names_the_field(server, model_id, fields, param, words,
                                                            stream):
    answer = exchange(
        server,
        "/v1/chat/completions",
        {"model": model_id, "messages": ASK, "max_tokens": 8, "stream": stream, **fields},
    )
    assert answer.status == 400, str(answer)
    assert answer.error["param"] == param
    assert words in answer.error["message"]
    assert not answer.headers["content-type"].startswith("text/event-stream")


def nested(depth):
    schema = {"type": "null"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def exploding():
    yield "deep", {"response_format": by_schema(nested(40))}
    yield "too deep", {"response_format": by_schema(nested(60))}
    yield "enum", {"guided_json": {"enum": [f"value {i}" for i in range(9000)]}}
    yield "min items", {"guided_json": {"type": "array", "minItems": 10**6, "items": {}}}
    yield "max items", {"guided_json": {"type": "array", "maxItems": 10**12, "items": {}}}
    yield "max length", {"guided_json": {"type": "string", "maxLength": 10**9}}
    yield "repeats", {"guided_regex": "((a{1,100}){1,100}){1,100}"}
    yield "backtracking", {"guided_regex": "(x+x+)+y"}
    yield "optional", {"guided_regex": "a?" * 5000 + "a" * 5000}
    yield "blow up", {"guided_regex": "(a|b)*a(a|b){20}"}
    yield "recursive", {"guided_json": {"$ref": "#"}}
    yield "ambiguous", {"guided_grammar": 'start: start start | "a"'}
    yield "left", {"guided_grammar": 'start: "" | start start start'}
    product = [{"anyOf": [{"required": [f"{c}{i}"]} for c in "abc"]} for i in range(12)]
    yield "product", {"guided_json": {"allOf": product}}


EXPLODING = list(exploding())


@pytest.mark.parametrize("name,fields", EXPLODING, ids=[n for n, _ in EXPLODING])
def test_a_constraint_that_explodes_ends_in_time(server, model_id, name, fields):
    start = time.monotonic()
    answer = exchange(
        server,
        "/v1/completions",
        {"model": model_id, "prompt": "A", "max_tokens": 20, "temperature": 0, **fields},
        timeout=30,
    )
    assert answer.status in (200, 400), str(answer)
    assert time.monotonic() - start < 20
    if answer.status == 400:
        assert answer.error["message"] and answer.error["param"]
    # … and nobody else noticed.
    calm = exchange(server, "/v1/completions",
                    {"model": model_id, "prompt": "A", "max_tokens": 3, "temperature": 0})
    assert calm.status == 200


def test_the_limit_of_tokens_ends_with_length(client, model_id):
    answer = chat(client, model_id, max_tokens=5,
                  response_format=by_schema(Person.model_json_schema()))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


def test_min_tokens_and_ignore_eos_end_with_the_grammar(client, model_id):
    for extra in ({"min_tokens": 30}, {"ignore_eos": True}):
        answer = chat(client, model_id, max_tokens=60,
                      extra_body={"guided_regex": "[ab]{4}", **extra})
        assert re.fullmatch("[ab]{4}", answer.choices[0].message.content)
        assert answer.choices[0].finish_reason == "stop"


def test_a_stop_string_ends_earlier(client, model_id):
    answer = chat(client, model_id, stop=["2"], extra_body={"guided_regex": "1{3}2{3}"})
    assert answer.choices[0].message.content == "111"
    assert answer.choices[0].finish_reason == "stop"


def test_logprobs_are_of_the_model_and_not_of_the_constraint(client, model_id):
    answer = chat(client, model_id, logprobs=True, top_logprobs=3,
                  extra_body={"guided_regex": "[0-9]{6}"})
    content = answer.choices[0].logprobs.content
    assert "".join(t.token for t in content) == answer.choices[0].message.content
    assert all(t.logprob <= t.top_logprobs[0].logprob for t in content)
    # The first token would not have been a digit.
    assert not content[0].top_logprobs[0].token.isdigit()


def validate_many(server, model_id, count, at_once=4):
    """How many of `count` answers by random schemas obey them; with different sampling."""

    def one(seed):
        rng = random.Random(seed)
        schema = random_schema(seed)
        answer = exchange(
            server,
            "/v1/chat/completions",
            {
                "model": model_id,
                "messages": [{"role": "user", "content": f"Give me item {seed} as JSON."}],
                "max_tokens": 400,
                "temperature": rng.choice((0, 0.7, 1.0, 1.6)),
                "seed": seed,
                "response_format": by_schema(schema),
            },
            timeout=120,
        )
        assert answer.status == 200, f"seed {seed}: {answer}"
        assert answer.finish == "stop", f"seed {seed}: {answer.finish}: {answer.text!r}"
        fastjsonschema.compile(schema)(json.loads(answer.text))
        return 1

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return sum(pool.map(one, range(count)))


def test_random_schemas_are_obeyed(server, model_id):
    assert validate_many(server, model_id, 40) == 40
    metrics = read_metrics(server)
    tokens = metrics.sum("stator_engine_guided_tokens_total")
    assert tokens > 0
    # A generous bound, for busy machines: some 50 µs is usual.
    assert metrics.sum("stator_engine_guide_seconds_total") / tokens < 2e-3


def test_an_engine_that_can_not_says_so(echo):
    for fields, param in (
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_regex": "a"}, "guided_regex"),
    ):
        answer = exchange(
            echo, "/v1/completions", {"model": "echo", "prompt": "a", "max_tokens": 2, **fields}
        )
        assert answer.status == 400
        assert answer.error["param"] == param
        assert answer.error["code"] == "unsupported_parameter"


def test_a_fleet_carries_constraints_and_large_ones(fleet):
    frontend = fleet.frontend()
    worker = fleet.worker("w1", stator_process.model(), served_model_name="small",
                          engine_threads=1, context=4096, max_sequence=2048).launch()
    worker.wait_ready()
    frontend.wait_workers("w1")
    with openai_client(frontend) as client:
        answer = client.chat.completions.parse(
            model="small", messages=ASK, response_format=Person, max_tokens=300, temperature=0
        )
        assert isinstance(answer.choices[0].message.parsed, Person)
        # More than a frame of the link.
        words = [f"the value number {i} of a long list" for i in range(3000)]
        answer = client.chat.completions.create(
            model="small", messages=ASK, max_tokens=40, temperature=0,
            response_format=by_schema({"enum": words}),
        )
        assert json.loads(answer.choices[0].message.content) in words
        with pytest.raises(openai.BadRequestError) as e:
            client.chat.completions.create(
                model="small", messages=ASK, max_tokens=40,
                response_format=by_schema({"type": "strnig"}),
            )
        assert e.value.param == "response_format.json_schema.schema"
        assert "strnig" in str(e.value)


def handoffs_claimed(worker):
    """By a worker that shows its metrics."""
    port = int(re.search(r"Health and metrics are shown\. port=(\d+)", worker.log()).group(1))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        metrics = Metrics(answer.read().decode())
    try:
        return metrics.sum("stator_worker_handoffs_total", outcome="claimed", kind="kv")
    except KeyError:
        return 0


def test_a_decode_leg_obeys_what_its_prefill_leg_was_not_told(fleet):
    """The prompt is computed by one worker, the constrained output by another one."""
    options = {"engine_threads": 1, "context": 8192, "max_sequence": 2048,
               "served_model_name": "small", "worker_http": "127.0.0.1:0"}
    workers = [fleet.worker(role, stator_process.model(), role=role, **options).launch()
               for role in ("prefill", "decode")]
    for worker in workers:
        worker.wait_ready()
    frontend = fleet.frontend(router_disaggregation="always")
    frontend.wait_workers("prefill", "decode")
    client = openai_client(frontend)
    schema = Person.model_json_schema()
    for seed in (1, 2, 3):
        person = f"Person number {seed} lives in the {seed}th house. " * 8
        asked = [{"role": "user", "content": person + "Describe the person as JSON."}]
        answer = chat(client, "small", messages=asked, response_format=by_schema(schema),
                      temperature=1, seed=seed, max_tokens=300)
        assert answer.choices[0].finish_reason == "stop"
        Person.model_validate_json(answer.choices[0].message.content)
        assert handoffs_claimed(workers[1]) == seed
    assert handoffs_claimed(workers[0]) == 0


def test_a_killed_worker_leaves_a_valid_answer(fleet):
    frontend = fleet.frontend(link_silent_after="2s", link_lost_after="8s")
    options = {"served_model_name": "small", "engine_threads": 1, "context": 4096,
               "max_sequence": 2048}
    workers = [fleet.worker(name, stator_process.model(), **options).launch()
               for name in ("w1", "w2")]
    for worker in workers:
        worker.wait_ready()
    frontend.wait_workers("w1", "w2")
    schema = {"type": "array", "items": {"type": "integer", "minimum": 100, "maximum": 999},
              "minItems": 30, "maxItems": 30}

    def kill_once(answer):
        if len(answer.tokens) >= 20 and all(w.process.poll() is None for w in workers):
            busy = [w for w in workers if sum(frontend.load(w.name) or (0,))]
            if busy:
                busy[0].kill()
        return True

    answer = stream_completion(frontend, "Numbers:", 400, kill_once, 90, model="small",
                               ignore_eos=False, guided_json=schema)
    assert answer.complete, str(answer)
    assert sum(w.process.poll() is not None for w in workers) == 1
    fastjsonschema.compile(schema)(json.loads(answer.text))
    assert answer.finish == "stop"
    wait_until(lambda: frontend.load("w1") is None or frontend.load("w2") is None, "one is gone")
