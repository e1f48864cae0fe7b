"""JSON schemas drawn at random: bounded, so that every answer that obeys one is short."""

import random

NAMES = ("name", "age", "city", "tags", "score", "kind", "next", "note", "size", "done")
WORDS = ("red", "green", "blue", "small", "large", "yes", "no", "north", "south")
PATTERNS = ("[a-z]{1,6}", "[A-Z][a-z]{2,5}", r"\d{3}-\d{4}", "(ab|cd){1,3}", "[0-9]{4}")


def random_schema(seed, depth=3):
    """An object at the top, as clients want it. The same seed gives the same schema."""
    rng = random.Random(seed)
    schema = _object(rng, depth)
    if rng.random() < 0.3:
        # One part by reference.
        schema["$defs"] = {"part": _any(rng, 1)}
        schema["properties"]["part"] = {"$ref": "#/$defs/part"}
        schema["required"].append("part")
    return schema


def _object(rng, depth):
    names = rng.sample(NAMES, rng.randint(1, 3))
    return {
        "type": "object",
        "properties": {name: _any(rng, depth - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.8],
        "additionalProperties": False,
    }


def _any(rng, depth):
    simple = (_string, _integer, _number, _enum, _boolean, _null, _pattern)
    if depth <= 0:
        return rng.choice(simple)(rng)
    return rng.choice((*simple, _array, _nested, _union))(rng, depth)


def _string(rng, _depth=0):
    return {"type": "string", "minLength": rng.randint(0, 3), "maxLength": rng.randint(3, 12)}


def _pattern(rng, _depth=0):
    return {"type": "string", "pattern": "^" + rng.choice(PATTERNS) + "$"}


def _integer(rng, _depth=0):
    low = rng.randint(-50, 50)
    return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 1000)}


def _number(rng, _depth=0):
    """Of few digits: a bare number may have as many as it likes."""
    return {"enum": [round(rng.uniform(-9, 9), 2) for _ in range(3)]}


def _enum(rng, _depth=0):
    return {"type": "string", "enum": rng.sample(WORDS, rng.randint(1, 4))}


def _boolean(_rng, _depth=0):
    return {"type": "boolean"}


def _null(_rng, _depth=0):
    return {"type": "null"}


def _array(rng, depth):
    low = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _any(rng, depth - 1),
        "minItems": low,
        "maxItems": low + rng.randint(0, 2),
    }


def _nested(rng, depth):
    return _object(rng, depth)


def _union(rng, depth):
    return {"anyOf": [_any(rng, depth - 1) for _ in range(rng.randint(2, 3))]}
