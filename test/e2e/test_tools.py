"""Calls of tools through the official client: read from what a model writes, and forced.

The echo engine repeats its prompt, so a user who writes a call in the notation that the server
looks for makes the model write it.
"""

import json

import openai
import pydantic
import pytest
import stator_process
from conftest import openai_client, read_metrics


class Weather(pydantic.BaseModel):
    """Weather of a place."""

    city: str
    days: int = 1


class Place(pydantic.BaseModel):
    name: str


class Trip(pydantic.BaseModel):
    """Plans a trip."""

    start: Place
    end: Place


TOOLS = [
    openai.pydantic_function_tool(Weather, name="get_weather"),
    openai.pydantic_function_tool(Trip, name="plan_trip"),
]
OSLO = (
    '<tool_call>\n{"name": "get_weather", "arguments": '
    '{"city": "Oslo", "days": 2}}\n</tool_call>'
)
TRIP = (
    '<tool_call>\n{"name": "plan_trip", "arguments": '
    '{"start": {"name": "Oslo"}, "end": {"name": "Rome"}}}\n</tool_call>'
)
# The echo engine's template ends a message with it; spelled out where calls are looked for.
END_OF_MESSAGE = "<|im_end|>"


@pytest.fixture(scope="module")
def calling_server():
    """A model that writes calls as Hermes models do."""
    with stator_process.StatorServer(
        engine="echo", threads=1, served_model_name="echo", tool_parser="hermes"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def caller(calling_server):
    with openai_client(calling_server) as client:
        yield client


def asked(text, **options):
    return {
        "model": "echo",
        "messages": [{"role": "user", "content": text}],
        "tools": TOOLS,
        "stop": END_OF_MESSAGE,
        "max_tokens": 2000,
        **options,
    }


def test_calls_of_a_whole_answer(caller):
    choice = caller.chat.completions.create(**asked(OSLO + "\n" + TRIP)).choices[0]
    assert choice.finish_reason == "tool_calls"
    first, second = choice.message.tool_calls
    assert first.type == "function"
    assert first.id.startswith("call_") and len(first.id) == 29 and first.id != second.id
    assert first.function.name == "get_weather"
    assert json.loads(first.function.arguments) == {"city": "Oslo", "days": 2}
    assert second.function.name == "plan_trip"


def test_parse_gives_the_arguments_as_values(caller):
    choice = caller.chat.completions.parse(**asked(OSLO + TRIP)).choices[0]
    weather, trip = (call.function.parsed_arguments for call in choice.message.tool_calls)
    assert weather == Weather(city="Oslo", days=2)
    assert trip.end == Place(name="Rome")


def test_the_streaming_helper_follows_calls(caller):
    pieces, done = [], []
    with caller.chat.completions.stream(**asked(OSLO + TRIP)) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.delta":
                pieces.append(event.arguments_delta)
            if event.type == "tool_calls.function.arguments.done":
                done.append((event.index, event.name, event.parsed_arguments))
        final = stream.get_final_completion()
    assert len(pieces) > 2  # as they come, not all at once
    assert done[0] == (0, "get_weather", Weather(city="Oslo", days=2))
    assert done[1][:2] == (1, "plan_trip")
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.choices[0].message.tool_calls[1].function.parsed_arguments.start.name == "Oslo"


def test_chunks_are_openais(caller):
    seen = []
    for chunk in caller.chat.completions.create(**asked(OSLO, stream=True)):
        for call in chunk.choices[0].delta.tool_calls or []:
            seen.append((call.index, call.id is not None, call.type, call.function.name))
    assert seen[0] == (0, True, "function", "get_weather")
    assert set(seen[1:]) == {(0, False, None, None)}


def test_one_call_at_a_time(caller):
    answer = caller.chat.completions.create(**asked(OSLO + TRIP, parallel_tool_calls=False))
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage.completion_tokens < len(OSLO) + 40


def test_no_calls_where_none_are_wanted(caller):
    choice = caller.chat.completions.create(**asked(OSLO, tool_choice="none")).choices[0]
    assert choice.message.tool_calls is None
    assert OSLO in choice.message.content


def test_a_cut_off_call_ends_by_length(caller):
    choice = caller.chat.completions.create(**asked(OSLO, max_tokens=80)).choices[0]
    assert choice.finish_reason == "length"
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    with pytest.raises(json.JSONDecodeError):
        json.loads(call.function.arguments)


def test_a_conversation_goes_on_with_the_result(caller):
    """What came back is sent again, with the result."""
    question = asked(OSLO)
    message = caller.chat.completions.create(**question).choices[0].message
    question["messages"] += [
        message,
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"},
    ]
    assert caller.chat.completions.create(**question).choices[0].message.content


@pytest.mark.parametrize(
    "wrong, param",
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "fly"}}},
            "tool_choice.function.name",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "x"},
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "1",
                                "type": "function",
                                "function": {"name": "f", "arguments": "{"},
                            }
                        ],
                    },
                ]
            },
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
        ),
    ],
)
def test_wrong_fields_are_named_by_their_path(caller, wrong, param):
    with pytest.raises(openai.BadRequestError) as e:
        caller.chat.completions.create(**asked("x", **wrong))
    assert e.value.param == param


def test_calls_are_counted(caller, calling_server):
    def counted():
        return read_metrics(calling_server).sum("stator_tool_calls_total", model="echo")

    before = counted()
    caller.chat.completions.create(**asked(OSLO + TRIP))
    assert counted() == before + 2


def test_an_unknown_parser_is_refused_at_the_start(start_server):
    with pytest.raises(Exception, match="hermes"):
        start_server(engine="echo", tool_parser="semaphore")


def test_auto_needs_a_known_notation(client, model_id):
    """The default model's template shows none."""
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(
            model=model_id, messages=[{"role": "user", "content": "x"}], tools=TOOLS
        )
    assert e.value.param == "tools"


FORCED = {
    "messages": [{"role": "user", "content": "Plan a trip from Oslo to Rome."}],
    "tools": TOOLS,
    "temperature": 0,
    "max_tokens": 200,
}


def test_a_forced_call_fits_its_schema(client, model_id):
    choice = client.chat.completions.parse(
        model=model_id,
        tool_choice={"type": "function", "function": {"name": "plan_trip"}},
        **FORCED,
    ).choices[0]
    assert choice.finish_reason == "stop"  # as OpenAI's where the call was named
    (call,) = choice.message.tool_calls
    assert call.function.name == "plan_trip"
    assert isinstance(call.function.parsed_arguments, Trip)
    assert choice.message.content is None


def test_a_required_call_is_one_of_the_tools(client, model_id):
    with client.chat.completions.stream(
        model=model_id, tool_choice="required", parallel_tool_calls=False, **FORCED
    ) as stream:
        final = stream.get_final_completion()
    choice = final.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name in ("get_weather", "plan_trip")
    assert isinstance(call.function.parsed_arguments, Weather | Trip)


def test_forced_calls_need_an_engine_that_can(caller):
    with pytest.raises(openai.BadRequestError) as e:
        caller.chat.completions.create(**asked("x", tool_choice="required"))
    assert e.value.param == "tool_choice"
