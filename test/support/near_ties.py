"""Whether two answers of one model are the same until its two best tokens were nearly as likely:
there the shape of a batch decides, in any engine."""

# Logits nearer than this may change places where the shape of a batch differs.
EPSILON = 1.0


def first_difference(ours, theirs):
    """Where two lists of tokens part; None: nowhere."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            return i
    return None


def gap(best):
    """Between the two best of logprobs (which differ from logits by a constant)."""
    ordered = sorted(best, reverse=True)
    return ordered[0] - ordered[1]
