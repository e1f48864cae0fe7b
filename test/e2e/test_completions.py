"""Text completions with the real model: prompts as text, as token ids, in batches."""

import math

import openai
import pytest

PROMPT = "The capital of France is"


def complete(client, model_id, prompt=PROMPT, **options):
    options = {"temperature": 0, "max_tokens": 8, **options}
    return client.completions.create(model=model_id, prompt=prompt, **options)


def prompt_ids(client, model_id, prompt):
    answer = complete(client, model_id, prompt, max_tokens=1, extra_body={"return_token_ids": True})
    return answer.choices[0].model_extra["prompt_token_ids"]


def test_text(client, model_id):
    answer = complete(client, model_id)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    (choice,) = answer.choices
    assert "Paris" in choice.text
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_token_ids_are_the_same_prompt(client, model_id):
    ids = prompt_ids(client, model_id, PROMPT)
    as_text, as_ids = complete(client, model_id), complete(client, model_id, ids)
    assert as_ids.choices[0].text == as_text.choices[0].text
    assert as_ids.usage.prompt_tokens == len(ids)


def test_batch_of_texts(client, model_id):
    prompts = [PROMPT, "One, two, three,", "Water boils at"]
    together = complete(client, model_id, prompts, max_tokens=5)
    assert [c.index for c in together.choices] == [0, 1, 2]
    alone = [complete(client, model_id, p, max_tokens=5) for p in prompts]
    # The batch's shape may move a near-tie; all three at once would be a mix-up of choices.
    equal = sum(c.text == a.choices[0].text for c, a in zip(together.choices, alone))
    assert equal >= 2
    assert together.usage.prompt_tokens == sum(a.usage.prompt_tokens for a in alone)


def test_batch_of_token_ids(client, model_id):
    ids = prompt_ids(client, model_id, PROMPT)
    answer = complete(client, model_id, [ids, ids], max_tokens=5)
    assert [c.index for c in answer.choices] == [0, 1]
    assert answer.choices[0].text == answer.choices[1].text


def test_n_times_batch(client, model_id):
    answer = complete(client, model_id, ["a", "b"], n=2, max_tokens=2, temperature=1)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]


def test_what_is_not_served_is_refused_by_name(client, model_id):
    for field, value in [("echo", True), ("suffix", "end"), ("best_of", 5)]:
        with pytest.raises(openai.BadRequestError) as caught:
            complete(client, model_id, **{field: value})
        assert caught.value.body["param"] == field


def test_logprobs(client, model_id):
    answer = complete(client, model_id, max_tokens=4, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == answer.usage.completion_tokens
    assert len(logprobs.token_logprobs) == len(logprobs.tokens) == len(logprobs.text_offset)
    assert "".join(logprobs.tokens).startswith(answer.choices[0].text)
    for token, logprob, best in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs
    ):
        assert logprob <= 0
        assert 1 <= len(best) <= 4
        assert math.isclose(max(best.values()), logprob, abs_tol=1e-4), token


def test_stop(client, model_id):
    whole = complete(client, model_id, "1, 2, 3, 4,", max_tokens=12).choices[0].text
    assert "6" in whole
    cut = complete(client, model_id, "1, 2, 3, 4,", max_tokens=12, stop="6")
    assert cut.choices[0].text == whole[: whole.index("6")]
    assert cut.choices[0].finish_reason == "stop"


def test_streamed_text_equals_whole_text(client, model_id):
    whole = complete(client, model_id).choices[0].text
    pieces = [c.text for event in complete(client, model_id, stream=True) for c in event.choices]
    assert "".join(pieces) == whole


def test_streamed_batch_keeps_choices_apart(client, model_id):
    prompts = [PROMPT, "One, two, three,"]
    texts = {0: "", 1: ""}
    ends = {}
    for event in complete(client, model_id, prompts, max_tokens=5, stream=True):
        for c in event.choices:
            texts[c.index] += c.text
            if c.finish_reason:
                ends[c.index] = c.finish_reason
    assert all(texts.values())
    assert ends == {0: "length", 1: "length"}
