"""Prefix reuse: the second turn of a chat costs only what is new, and never changes the answer."""

import time

import stator_process
from conftest import openai_client

FACTS = " ".join(f"Item {i} on the shelf is worth {i * 7 % 101} coins." for i in range(75))


def first_turn(key):
    return [
        {"role": "system", "content": f"List {key}. You answer briefly."},
        {"role": "user", "content": f"{FACTS} How many items are there?"},
    ]


def second_turn(key, answer):
    return [
        *first_turn(key),
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "Which item is the dearest?"},
    ]


def timed(client, model_id, messages, max_tokens=8):
    """(seconds to the first text, text, usage) of a greedy streamed chat."""
    started = time.perf_counter()
    first, text, usage = None, "", None
    for event in client.chat.completions.create(
        model=model_id,
        messages=messages,
        temperature=0,
        max_tokens=max_tokens,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = event.usage or usage
        for choice in event.choices:
            if choice.delta.content:
                first = first or time.perf_counter() - started
                text += choice.delta.content
    return first, text, usage


def test_second_turn_is_cached_and_quicker(client, model_id):
    _, answer, usage = timed(client, model_id, first_turn("a"))
    assert usage.prompt_tokens > 1000
    assert usage.prompt_tokens_details.cached_tokens < 100
    with_reuse, _, usage = timed(client, model_id, second_turn("a", answer))
    cached = usage.prompt_tokens_details.cached_tokens
    # Everything up to the old prompt's end, but for the last block.
    assert cached > 0.9 * usage.prompt_tokens - 64
    without, _, other = timed(client, model_id, second_turn("unseen", answer))
    assert other.prompt_tokens_details.cached_tokens < 100
    # The benchmark holds the ratio against 3; here a busy machine is allowed for.
    assert with_reuse < without / 2


def test_the_same_prompt_again_is_cached_and_gives_the_same_text(client, model_id):
    messages = first_turn("again")
    _, fresh, before = timed(client, model_id, messages)
    _, reused, after = timed(client, model_id, messages)
    assert before.prompt_tokens == after.prompt_tokens
    assert after.prompt_tokens_details.cached_tokens > 0.9 * after.prompt_tokens
    assert after.prompt_tokens_details.cached_tokens < after.prompt_tokens
    assert reused[:8] == fresh[:8]


def test_choices_share_their_prompt(client, model_id):
    answer = client.chat.completions.create(
        model=model_id, messages=first_turn("shared"), max_tokens=2, n=4, seed=1
    )
    assert len(answer.choices) == 4
    assert answer.usage.completion_tokens <= 8


def test_reuse_can_be_switched_off(start_server):
    server = start_server(
        stator_process.model(),
        engine_threads=1,
        threads=1,
        context=2048,
        prefix_cache="false",
        served_model_name="m",
    )
    with openai_client(server) as client:
        for _ in range(2):
            answer = client.completions.create(
                model="m", prompt="One two three " * 20, max_tokens=1
            )
            assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_cache_under_pressure_stays_right(start_server):
    """More prompts than the cache holds: old ones are evicted, answers stay what they were."""
    server = start_server(
        stator_process.model(),
        engine_threads=1,
        threads=1,
        context=1024,
        max_running=2,
        served_model_name="m",
    )
    with openai_client(server) as client:

        def answer(key):
            words = f"Number {key}. " + f"The number after {key} is what? " * 20
            done = client.completions.create(model="m", prompt=words, max_tokens=6, temperature=0)
            return done.choices[0].text

        before = {key: answer(key) for key in range(6)}
        for _ in range(2):
            after = {key: answer(key) for key in range(6)}
            # A reused prefix is computed in other pieces: near-ties may fall the other way.
            assert sum(before[key] == after[key] for key in before) >= 4
