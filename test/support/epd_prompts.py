"""Prompts of mixed length, some with a common beginning."""

import random
import string


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
