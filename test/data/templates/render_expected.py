#!/usr/bin/env python3
"""Writes cases.json and snippets.json: what Jinja2, set up as Transformers sets it up, makes of the templates here.

    pip install jinja2==3.1.6 && python3 render_expected.py

The tests of stator/text hold our renderer to these files.
"""
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent
NOW = 1754989323  # 2025-08-12 09:02:03 UTC


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def environment(now):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    if now is not None:
        moment = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        env.globals["strftime_now"] = moment.strftime
    return env


def render(source, context, now=NOW):
    template = environment(now).from_string(source)
    try:
        return {"expected": template.render(bos_token="<s>", eos_token="</s>", **context)}
    except jinja2.exceptions.TemplateError as e:
        if type(e) is jinja2.exceptions.TemplateError:
            return {"raises": e.message}
        return {"fails": type(e).__name__}
    except Exception as e:
        return {"fails": type(e).__name__}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def tool_result(content):
    return {"role": "tool", "content": content}


WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "Weather of a place.\nNow.",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "A \"town\" <b>or</b> city & 'more'"},
        "unit": {"type": "string", "enum": ["°C", "°F"], "default": "°C"},
        "days": {"type": "integer", "minimum": 1, "maximum": 1e3},
        "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "keys": {"type": ["string", "null"]}},
        "required": ["place"]}}}
CLOCK = {"type": "function", "function": {
    "name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "id": "abc123def", "function": {
    "name": "weather", "arguments": {"place": "Zürich", "days": 2, "ratio": 0.5, "x": None, "y": True}}}

CONVERSATIONS = {
    "one question": {"messages": [user("Hello")], "add_generation_prompt": True},
    "no generation prompt": {"messages": [user("Hello"), assistant(" Hi! \n")],
                             "add_generation_prompt": False},
    "system and several turns": {
        "messages": [system("Be brief."), user("2+2?"), assistant("4"), user("  And 3+3?\n")],
        "add_generation_prompt": True},
    "unicode and quotes": {
        "messages": [user("Grüezi 👋🏽 \"quoted\" 'single' \\ back\tslash {{ not.a.tag }} {% raw %}"),
                     assistant("日本語\u2028é"), user("ok\u0000")],
        "add_generation_prompt": True},
    "roles do not alternate": {"messages": [user("a"), user("b")], "add_generation_prompt": True},
    "unknown role": {"messages": [user("a"), {"role": "critic", "content": "b"}]},
    "tools": {"messages": [system("S"), user("Weather in Zürich?")], "tools": [WEATHER, CLOCK],
              "add_generation_prompt": True},
    "a tool call and its result": {
        "messages": [user("Weather?"), assistant("", tool_calls=[CALL]),
                     tool_result("{\"t\": 21}")],
        "tools": [WEATHER], "add_generation_prompt": True},
    "two tool calls": {
        "messages": [user("Weather?"), assistant("Well", tool_calls=[CALL, CALL]),
                     tool_result("1"), tool_result("2"), assistant("done"), user("thanks")],
        "tools": [WEATHER], "add_generation_prompt": True},
    "a tool result that is a mapping": {
        "messages": [user("q"), assistant("x", tool_calls=[CALL]), tool_result({"a": [1, 2.5, "é"]})],
        "add_generation_prompt": True},
    "thoughts in earlier turns": {
        "messages": [user("1"), assistant("<think>\nhm\n</think>\n\none"), user("2"),
                     assistant("<think>\nso\n</think>\n\ntwo")],
        "add_generation_prompt": False},
    "reasoning apart": {
        "messages": [user("1"), assistant("one", reasoning_content="because\n")],
        "add_generation_prompt": True, "enable_thinking": False},
    "tools are null": {"messages": [user("x")], "tools": None, "add_generation_prompt": True},
    "content in parts": {
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What? "}]}],
        "add_generation_prompt": True},
    "content is null": {"messages": [user("x"), {"role": "assistant", "content": None}]},
    "an own date": {"messages": [user("x")], "date_string": "1 Jan 1970"},
    "no messages": {"messages": []},
}

VALUES = {
    "s": "Hello World", "e": "", "u": "äÖ ß\t\n", "i": 7, "neg": -3, "f": 2.5, "one": 1.0, "big": 1e16,
    "small": 0.00001, "huge": 18446744073709551615, "t": True, "n": None, "l": [3, 1, 2],
    "d": {"b": 1, "a": [1, {"x": None}], "items": "shadow"}, "nested": [{"k": "x"}, {"k": "y"}, {"k": "x"}],
    "html": "<a href='x'>&\"</a>", "lines": "a\nb\r\nc\n", "ctrl": "\u0001\u001f\u007f\u0085\u2028\U0001F600",
}

SNIPPETS = [
    # printing
    "{{ t }} {{ n }} {{ i }} {{ f }} {{ one }} {{ s }} {{ huge }}", "{{ l }}", "{{ d }}", "{{ 7 / 2 }}",
    "{{ 8 / 2 }}", "{{ 7 // 2 }}", "{{ -7 // 2 }}", "{{ -7 % 3 }}", "{{ 2 ** 10 }}", "{{ i + f }}", "{{ 'a' * 3 }}",
    "{{ missing }}|", "{{ missing.x }}", "{{ d.missing }}|", "{{ d['missing'] }}|", "{{ missing is defined }}",
    "{{ [1, 'a', None, True, 1.5, 'it\\'s'] }}", "{{ {'k': \"v\"} }}", "{{ (1, 2) }}", "{{ 'x' ~ 1 ~ true ~ none }}",
    "{{ 1 if false }}|", "{{ not missing }}", "{{ missing or 'y' }}", "{{ e or 'empty' }}", "{{ 1 < 2 < 3 }}",
    # json
    "{{ d | tojson }}", "{{ d | tojson(indent=2) }}", "{{ l | tojson }}", "{{ html | tojson }}", "{{ u | tojson }}",
    "{{ ctrl | tojson }}", "{{ u | tojson(ensure_ascii=True) }}", "{{ ctrl | tojson(True) }}",
    "{{ d | tojson(sort_keys=True) }}", "{{ d | tojson(separators=(',', ':')) }}", "{{ [] | tojson(indent=2) }}",
    "{{ {} | tojson(indent=4) }}", "{{ [f, one, big, small, huge, neg, 1e300, 123456.789, 1e-7, 0.1] | tojson }}",
    "{{ {'a': {'b': []}} | tojson(indent=3) }}", "{{ missing | tojson }}", "{{ 'x' | tojson(indent='--') }}",
    "{{ [1] | tojson(indent='--') }}", "{{ true | tojson }}{{ none | tojson }}", "{{ [1,2] | tojson(indent=0) }}",
    "{{ {1: 2, none: 3, true: 4} | tojson }}", "{{ (1, 2) | tojson }}",
    # methods
    "{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ 'aB'.capitalize() }}", "{{ u.strip() }}|",
    "{{ s.split() }} {{ s.split('o') }} {{ s.split('o', 1) }}", "{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }}",
    "{{ s.startswith('He') }} {{ s.endswith('x') }} {{ s.startswith(('x', 'H')) }}", "{{ s.find('o') }} {{ s.find('z') }} {{ s.rfind('o') }}",
    "{{ '-'.join(['a', 'b']) }}", "{{ s.lstrip('He') }} {{ s.rstrip('dl') }}", "{{ lines.splitlines() }}", "{{ s.count('l') }}",
    "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a,b,c'.rsplit(',') }} {{ ' a  b c '.rsplit(None, 1) }} {{ ' a b '.rsplit() }}",
    "{{ 'a:b:c'.partition(':') }} {{ 'a:b:c'.rpartition(':') }} {{ 'abc'.partition(':') }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }}", "{{ '{} {}'.format('a', 1) }}",
    "{{ d.items() | list }}", "{{ d.keys() | list }}", "{{ d.values() | list }}", "{{ d.get('b') }} {{ d.get('z') }} {{ d.get('z', 5) }}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'a'.isalpha() }}",
    "{{ s[0] }}{{ s[-1] }}{{ s[1:4] }}{{ s[::-1] }}", "{{ l[::-1] }} {{ l[1:] }} {{ l[-1] }}", "{{ d['items'] }}",
    "{{ l.index(1) }}", "{{ l.count(3) }}", "{{ s.nothing() }}", "{{ l.append(4) }}",
    # filters
    "{{ l | sort }} {{ l | max }} {{ l | min }} {{ l | sum }} {{ l | length }} {{ l | first }} {{ l | last }}",
    "{{ l | join(', ') }}", "{{ nested | map(attribute='k') | list }}", "{{ nested | selectattr('k', 'equalto', 'x') | list | length }}",
    "{{ nested | rejectattr('k', 'eq', 'x') | map(attribute='k') | join }}", "{{ nested | map(attribute='k') | unique | join(',') }}",
    "{{ s | upper | lower | title | trim | replace('W', 'V') }}", "{{ missing | default('d') }} {{ e | default('d', true) }}|",
    "{{ f | int }} {{ '5' | int + 1 }} {{ i | float }} {{ 2.567 | round(2) }} {{ -3 | abs }}", "{{ i | string + 'x' }}",
    "{{ lines | indent(4) }}", "{{ d | dictsort }}", "{{ d | items | list }}", "{{ s | list | length }}", "{{ html | e }}", "{{ html | safe }}",
    "{{ [1,2,3,4,5] | batch(2) | list }}", "{{ l | reverse | list }}", "{{ range(3) | list }} {{ range(2, 8, 3) | list }}",
    "{{ nested | groupby('k') | length }}", "{{ l | select('odd') | list }}", "{{ '%s-%d' | format('a', 3) }}",
    "{{ l | string }} {{ d | string }}", "{{ none | string }}", "{{ [true, none, 1.5] | join(' ') }}",
    # tests
    "{{ s is string }} {{ l is string }} {{ d is mapping }} {{ l is mapping }} {{ l is iterable }} {{ s is iterable }} {{ i is iterable }}",
    "{{ s is sequence }} {{ l is sequence }} {{ d is sequence }} {{ i is sequence }} {{ n is sequence }}", "{{ i is number }} {{ t is number }} {{ t is boolean }} {{ i is integer }} {{ f is float }}",
    "{{ n is none }} {{ missing is none }} {{ n is not none }} {{ t is true }} {{ t is sameas true }} {{ i is divisibleby(7) }} {{ i is odd }}",
    "{{ 'a' in s }} {{ 'World' in s }} {{ 3 in l }} {{ 'b' in d }} {{ 'x' not in l }}", "{{ t == 1 }} {{ i == 7.0 }} {{ 'a' < 'b' }}",
    "{{ n is iterable }} {{ d is iterable }} {{ missing is iterable }}",
    # statements
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% else %}none{% endfor %}", "{% for x in [] %}x{% else %}none{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in l if x > 1 %}{{ x }}{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ loop.nextitem }} {% endfor %}", "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% set x = 1 %}{% for y in l %}{% set x = y %}{% endfor %}{{ x }}", "{% set ns = namespace(x=1) %}{% for y in l %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set x %}block {{ i }}{% endset %}{{ x | upper }}", "{% macro m(a, b='B') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}", "{% filter upper %}abc{% endfilter %}", "{% with y = 5 %}{{ y }}{% endwith %}{{ y }}|",
    "{% raw %}{{ x }}{% endraw %}", "a\n{% if true %}\nb\n{% endif %}\nc\n", "  {% if true %}x{% endif %}  \n y", "{%- if true -%}  z  {%- endif %} w", "{# comment #}x{#- c -#} y",
    "{% generation %} a {% endgeneration %} b", "x {%- generation -%} a {%- endgeneration +%} b", "{% generation %}{% set x = 3 %}{{ x }}{% endgeneration %}{{ x }}|",
    "{{ '{% generation %}' }}", "{% raw %}{% generation %}{% endraw %}", "{# {% generation %} #}y", "{% if e %}a{% elif l %}b{% else %}c{% endif %}",
    "{{ raise_exception('own words') }}", "{{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %b %a %j %p %I %y %d') }}", "{{ strftime_now('%-d %-m %F %T %% %e') }}",
    "{{ bos_token }}{{ eos_token }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ missing() }}", "{{ undefined_filter | nosuch }}", "{{ n.x }}|", "{{ n.x.y }}",
    "{{ dict(a=1, b=2) }}", "{{ [1] + [2] }}", "{{ 'abc'[5] }}|", "{{ l[10] }}|",
    "{% set x = {'a': 1} %}{{ x.a }}{{ x['a'] }}{{ x.get('b', 'no') }}", "{{ 'é' | length }} {{ '👋🏽' | length }}", "{{ loop is defined }}",
    "{% for a in [1,2] %}{% for b in [3,4] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{{ [[1, 2], [3, 4]] | map('first') | list }}", "{{ nested | map('tojson') | join(',') }}", "{{ 'x' if s is string and s | length > 3 else 'y' }}",
]


def main():
    cases = []
    for path in sorted(HERE.glob("*.jinja")):
        for name, context in CONVERSATIONS.items():
            case = {"template": path.name, "name": name, "unix_seconds": NOW, "context": context}
            cases.append({**case, **render(path.read_text(), context)})
    cases.append({"template": "headers.jinja", "name": "no clock", "unix_seconds": None,
                  "context": CONVERSATIONS["one question"],
                  **render((HERE / "headers.jinja").read_text(), CONVERSATIONS["one question"], None)})
    snippets = []
    for source in SNIPPETS:
        try:
            snippets.append({"source": source, **render(source, VALUES)})
        except jinja2.exceptions.TemplateSyntaxError as e:
            snippets.append({"source": source, "fails": type(e).__name__})
    write("cases.json", {"cases": cases})
    write("snippets.json", {"unix_seconds": NOW, "context": VALUES, "snippets": snippets})


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
