"""Published tokenizers: ids and texts are those of the Python package `tokenizers`."""

import sys
import time

import pytest
import tokenize_process
import tokenizer_texts

pytestmark = pytest.mark.skipif(
    tokenize_process.real_folder() is None,
    reason="needs npm's tokenizers: ./dev test sets STATOR_TOKENIZERS where npm is installed",
)

RANDOM_TEXTS = 200
RUN = 6_000
LONG_SECONDS = 10


@pytest.fixture(scope="module", params=tokenize_process.real_names() or ["none"])
def pair(request):
    """Ours, and the library that says what is right."""
    folder = tokenize_process.real_folder()
    file = folder / request.param / "tokenizer.json"
    if str(folder / "python") not in sys.path:
        sys.path.append(str(folder / "python"))
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(file))
    theirs.no_truncation()
    theirs.no_padding()
    with tokenize_process.TokenizeProcess(file) as ours:
        yield ours, theirs


def marks(theirs):
    return [t.content for t in theirs.get_added_tokens_decoder().values()]


def check(pair, texts):
    ours, theirs = pair
    for text in texts:
        wanted = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == wanted, f"text: {text[:200]!r}"
        assert ours.decode(wanted) == theirs.decode(wanted), f"text: {text[:200]!r}"


def test_sentences_and_long_texts(pair):
    check(pair, ["", *tokenizer_texts.SENTENCES, "\n".join(tokenizer_texts.SENTENCES)])
    check(pair, tokenizer_texts.long_texts(30_000))


def test_every_code_point(pair):
    check(pair, tokenizer_texts.code_points())


def test_runs(pair):
    check(pair, tokenizer_texts.runs(RUN))


def test_added_tokens_in_context(pair):
    every = marks(pair[1])
    check(pair, [f"a{m} b {m}{m}\nc" for m in every[:: max(1, len(every) // 300)]])


def test_random_texts(pair):
    texts = tokenizer_texts.Random(1, marks(pair[1]))
    check(pair, (next(texts) for _ in range(RANDOM_TEXTS)))


def test_what_comes_in_front_is_the_templates(pair):
    ours, theirs = pair
    wanted = theirs.encode("Hello").ids
    plain = theirs.encode("Hello", add_special_tokens=False).ids
    lead = wanted[: len(wanted) - len(plain)] if wanted[-len(plain) :] == plain else []
    assert ours.encode("Hello", "b") == lead + plain


def test_texts_of_users_hold_no_special_token(pair):
    ours, theirs = pair
    special = {i for i, t in theirs.get_added_tokens_decoder().items() if t.special}
    every = marks(theirs)
    for text in ["".join(every[:200]), *(f"a{m}b" for m in every[:: max(1, len(every) // 100)])]:
        assert not special.intersection(ours.encode(text, "t")), f"text: {text[:200]!r}"
    for text in tokenizer_texts.SENTENCES:
        assert ours.encode(text, "t") == ours.encode(text)


def test_long_texts_take_linear_time(pair):
    ours, _ = pair
    for text in [*tokenizer_texts.runs(300_000)][::2]:
        begin = time.monotonic()
        ours.encode(text)
        assert time.monotonic() - begin < LONG_SECONDS, f"text: {text[:20]!r}…"
