"""Whether a fleet answers as one worker does: prompts to ask both, and where their answers part."""

import concurrent.futures
import os
import random
import string

from answers import stream_completion

METHODS = ("shm", "tcp", "nixl")
# In logits. Two tokens nearer than this may change places where the shape of a batch differs, for
# then sums are rounded in another order.
NEAR_TIE = 1.0


def transfer_options(method):
    """Options of a worker whose handoffs go this way alone; None where STATOR_NIXL is not set and
    NIXL can't be tried."""
    if method != "nixl":
        return {"transfer": method}
    library = os.environ.get("STATOR_NIXL", "")
    return {"transfer": "nixl", "nixl_library": library} if library else None


def prompts_of_mixed_length(count, longest, seed=1):
    """Of 2 to `longest` words; every fourth begins as the others of its kind do."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(500)]
    shared = " ".join(rng.choices(words, k=longest // 3))
    out = []
    for i in range(count):
        length = max(1, int(longest ** rng.uniform(0.1, 1.0)))
        own = f"{i} " + " ".join(rng.choices(words, k=length))
        out.append(f"{shared} {own}" if i % 4 == 0 else own)
    return out


def answers_of(frontend, prompts, max_tokens, at_once=8, **fields):
    def one(prompt):
        return stream_completion(
            frontend, prompt, max_tokens, timeout=120, temperature=0, ignore_eos=True, **fields
        )

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(one, prompts))
    for answer in answers:
        assert answer.complete, str(answer)
    return answers


def gap_where_they_part(answer, whole):
    """None: the same tokens. Else how far apart the two best logits were for `whole`, asked with
    its two best logprobs, at the first token that differs: logprobs differ as logits do."""
    assert len(answer.tokens) == len(whole.tokens) == len(whole.best)
    for ours, theirs, best in zip(answer.tokens, whole.tokens, whole.best, strict=True):
        if ours != theirs:
            first, second = sorted(best.values(), reverse=True)[:2]
            return first - second
    return None
