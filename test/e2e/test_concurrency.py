"""Sixteen clients at once: every answer whole, its own, and (near-ties aside) what it would be
alone."""

import concurrent.futures

COUNT = 16
TOPICS = (
    "apples bread cats dogs eggs fish grass hats ice jam kites lamps maps nuts owls pears".split()
)
TOKENS = 12


def ask(client, model_id, topic):
    answer = client.chat.completions.create(
        model=model_id,
        messages=[{"role": "user", "content": f"Write one sentence about {topic}."}],
        temperature=0,
        max_tokens=TOKENS,
    )
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert 1 <= answer.usage.completion_tokens <= TOKENS
    return answer.choices[0].message.content


def test_together_equals_alone(client, model_id):
    alone = [ask(client, model_id, topic) for topic in TOPICS]
    with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
        together = list(pool.map(lambda topic: ask(client, model_id, topic), TOPICS))
    assert all(together)
    # The shape of a batch changes rounding, so near-ties may fall the other way; how near is
    # tested at the engine. A mix-up of sequences would break most of these.
    equal = sum(a == b for a, b in zip(alone, together))
    assert equal > COUNT // 2, list(zip(alone, together))


def test_streams_do_not_mix(client, model_id):
    def one(topic):
        pieces = client.chat.completions.create(
            model=model_id,
            messages=[{"role": "user", "content": f"Spell the word {topic}."}],
            temperature=0,
            max_tokens=TOKENS,
            stream=True,
        )
        events = list(pieces)
        assert len({event.id for event in events}) == 1
        reasons = [c.finish_reason for e in events for c in e.choices if c.finish_reason]
        assert len(reasons) == 1
        return events[0].id, "".join(c.delta.content or "" for e in events for c in e.choices)

    with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
        done = list(pool.map(one, TOPICS))
    assert len({identity for identity, _ in done}) == COUNT
    assert all(text for _, text in done)
