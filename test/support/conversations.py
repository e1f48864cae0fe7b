"""Conversations that chat templates are rendered with: variables as Transformers passes them."""

IMAGE = {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def tool(content, **more):
    return {"role": "tool", "content": content, **more}


def call(name, arguments, call_id="abc123def"):
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.\nNow or later.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": 'A "town" <b>or</b> city & \'more\''},
                "unit": {"type": "string", "enum": ["°C", "°F"], "default": "°C"},
                "days": {"type": "integer", "minimum": 1, "maximum": 1e3},
                "hours": {"type": "array", "items": {"type": "number"}},
                "grid": {"type": "array", "items": {"type": "array", "items": {"type": "object"}}},
                "who": {"type": ["string", "null"], "nullable": True},
                "more": {
                    "type": "object",
                    "description": "Nested.",
                    "properties": {"deep": {"type": "boolean"}, "n": {"type": "number"}},
                    "required": ["deep"],
                },
                "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            },
            "required": ["place", "unit"],
        },
        "return": {"type": "object", "description": "What it will be."},
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    },
}
BARE = {"type": "function", "function": {"name": "bare", "description": "No parameters."}}
TOOLS = [WEATHER, CLOCK]

ARGUMENTS = {
    "place": "Zürich",
    "days": 2,
    "ratio": 0.5,
    "x": None,
    "y": True,
    "l": [1, "a"],
    "d": {"k": "v"},
}
DOCUMENTS = [
    {"title": "Lakes", "text": "The lake is deep.\nVery.", "contents": "a", "url": "https://x.y"},
    {"title": "Hills", "text": "Höhe: 800 m", "contents": "b", "url": "https://x.z"},
]

MESSAGES = {
    "a question": [user("Hello")],
    "a question and white space": [user("  Hello \n")],
    "an answer": [user("Hello"), assistant(" Hi! \n")],
    "a system prompt": [system("Be brief."), user("2+2?")],
    "several turns": [
        system("Be brief."),
        user("2+2?"),
        assistant("4"),
        user("3+3?"),
        assistant("6"),
        user("Why?"),
    ],
    "unicode and marks": [
        user("Grüezi 👋🏽 \"q\" 'q' \\ \t{{ no.tag }} {% raw %} <|im_end|> <br> & \u2028"),
        assistant("日本語 é"),
        user("ok"),
    ],
    "an empty question": [user("")],
    "an empty system prompt": [system(""), user("x")],
    "empty messages": [user("a"), assistant(""), user("b")],
    "a null answer": [user("a"), {"role": "assistant", "content": None}, user("b")],
    "two questions": [user("a"), user("b")],
    "only a system prompt": [system("Be brief.")],
    "a system prompt in the middle": [user("a"), assistant("b"), system("Be loud."), user("c")],
    "a developer": [{"role": "developer", "content": "Be brief."}, user("x")],
    "an unknown role": [user("a"), {"role": "critic", "content": "b"}],
    "no messages": [],
    "a call and its result": [
        user("Weather?"),
        assistant("", tool_calls=[call("weather", ARGUMENTS)]),
        tool('{"t": 21}', name="weather", tool_call_id="abc123def"),
    ],
    "a call with a null answer": [
        user("Weather?"),
        assistant(None, tool_calls=[call("weather", {"place": "Bern"})]),
        tool("21", name="weather", tool_call_id="abc123def"),
        assistant("It is 21."),
        user("Thanks"),
    ],
    "a call with an answer and thoughts": [
        user("Weather?"),
        assistant("I look.", reasoning_content="Hm.\n", tool_calls=[call("clock", {})]),
        tool("12:00", name="clock", tool_call_id="abc123def"),
    ],
    "two calls": [
        user("Weather?"),
        assistant("", tool_calls=[call("weather", ARGUMENTS), call("clock", {}, "def456abc")]),
        tool("1", name="weather", tool_call_id="abc123def"),
        tool("2", name="clock", tool_call_id="def456abc"),
        assistant("done"),
        user("thanks"),
    ],
    "a call with arguments in a string": [
        user("q"),
        assistant("", tool_calls=[call("weather", '{"place": "Bern"}')]),
        tool("x", name="weather", tool_call_id="abc123def"),
    ],
    "a result that is a mapping": [
        user("q"),
        assistant("x", tool_calls=[call("weather", ARGUMENTS)]),
        tool({"a": [1, 2.5, "é"]}, name="weather", tool_call_id="abc123def"),
    ],
    "results in parts": [
        user("q"),
        assistant("x", tool_calls=[call("weather", ARGUMENTS)]),
        tool([text("one"), text("two")], name="weather", tool_call_id="abc123def"),
    ],
    "thoughts in turns": [
        user("1"),
        assistant("<think>\nhm\n</think>\n\none"),
        user("2"),
        assistant("<think>\nso\n</think>\n\ntwo"),
    ],
    "thoughts apart": [
        user("1"),
        assistant("one", reasoning_content="because\n"),
        user("2"),
        assistant("two", reasoning_content="\nfor\n"),
    ],
    "thoughts, newer name": [
        user("1"),
        assistant("one", reasoning="because\n", thinking="so"),
        user("2"),
    ],
    "parts": [user([text(" What? ")])],
    "an image": [user([IMAGE, text(" What? ")])],
    "images and a system prompt in parts": [
        system([text("Be brief.")]),
        user([text("These:"), IMAGE, {"type": "image_url", "image_url": {"url": "https://x.y/z"}}]),
        assistant([text("Two.")]),
        user([text("a"), text("b")]),
    ],
    "audio and video": [user([{"type": "audio"}, {"type": "video"}, text("?")])],
    "a name": [{"role": "user", "name": "ann", "content": "x"}, assistant("y"), user("z")],
    "many turns": [
        *(m for i in range(20) for m in (user(f"q{i}"), assistant(f"a{i}"))),
        user("end"),
    ],
    "long lines": [user("\n\n".join("word " * 30 for _ in range(20)))],
}

SETTINGS = {
    "plain": {"add_generation_prompt": True},
    "no generation prompt": {"add_generation_prompt": False},
    "tools": {"add_generation_prompt": True, "tools": TOOLS},
    "a tool without parameters": {"add_generation_prompt": True, "tools": [BARE]},
    "no tools": {"add_generation_prompt": True, "tools": []},
    "documents": {"add_generation_prompt": True, "documents": DOCUMENTS},
    "thinking": {"add_generation_prompt": True, "enable_thinking": True, "thinking": True},
    "no thinking": {"add_generation_prompt": True, "enable_thinking": False, "thinking": False},
    "efforts": {
        "add_generation_prompt": True,
        "reasoning_effort": "high",
        "tools": TOOLS,
        "model_identity": "You are Ann.",
        "builtin_tools": ["browser", "python"],
        "enable_thinking": True,
        "preserve_thinking": True,
        "clear_thinking": False,
        "keep_past_thinking": True,
        "truncate_history_thinking": False,
    },
    "a date": {
        "add_generation_prompt": True,
        "date_string": "1 Jan 1970",
        "tools_in_user_message": False,
        "tools": TOOLS,
        "add_vision_id": True,
    },
}


def contexts():
    """(name, variables): all messages in all settings; None where Transformers has none."""
    for what, messages in MESSAGES.items():
        for how, setting in SETTINGS.items():
            variables = {"messages": messages, "tools": None, "documents": None, **setting}
            yield f"{what}, {how}", variables
