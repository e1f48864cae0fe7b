"""Series from traces, and how far forecasts are from what came."""

import csv
import datetime
import json
import math

QUANTILES = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995]
WARM_UP = 0.1  # of the windows, not scored


def mooncake(path):
    """(second, input tokens, output tokens) of each request."""
    with open(path) as lines:
        for line in lines:
            request = json.loads(line)
            yield request["timestamp"] / 1000, request["input_length"], request["output_length"]


def azure(path):
    with open(path, newline="") as lines:
        for row in csv.DictReader(lines):
            second, _, fraction = row["TIMESTAMP"].partition(".")
            at = datetime.datetime.strptime(second, "%Y-%m-%d %H:%M:%S")
            at = at.replace(tzinfo=datetime.timezone.utc).timestamp() + float("0." + fraction)
            yield at, int(row["ContextTokens"]), int(row["GeneratedTokens"])


def read_trace(path):
    """The requests of a trace by its format, or None where it has another one."""
    with open(path) as lines:
        first = lines.readline()
    if path.suffix == ".jsonl" and '"input_length"' in first and '"timestamp"' in first:
        return sorted(mooncake(path))
    if path.suffix == ".csv" and first.strip() == "TIMESTAMP,ContextTokens,GeneratedTokens":
        return sorted(azure(path))
    return None


def windows_of(requests, window_s):
    """Of each whole window: arrivals, mean input and mean output tokens (None without requests)."""
    start = requests[0][0]
    count = int((requests[-1][0] - start) // window_s)
    sums = [[0, 0, 0] for _ in range(count)]
    for at, inputs, outputs in requests:
        index = int((at - start) // window_s)
        if index < count:
            sums[index][0] += 1
            sums[index][1] += inputs
            sums[index][2] += outputs
    return [(n, i / n if n else None, o / n if n else None) for n, i, o in sums]


def reference_loss(said, came):
    """0.4·|Δlog1p(n·isl)| + 0.4·|Δlog1p(n·osl)| + 0.1·|Δlog1p isl| + 0.1·|Δlog1p osl|, a mean over
    the windows. Where nothing came, lengths have no truth and don't count."""
    total = 0
    for (n, isl, osl), (actual, actual_isl, actual_osl) in zip(said, came):
        for share, value, length in ((0.4, isl, actual_isl), (0.4, osl, actual_osl)):
            total += share * abs(math.log1p(n * value) - math.log1p(actual * (length or 0)))
        for value, length in ((isl, actual_isl), (osl, actual_osl)):
            if length is not None or ZERO_LENGTHS:
                total += 0.1 * abs(math.log1p(value) - math.log1p(length or 0))
    return total / len(came)


ZERO_LENGTHS = False


def wape(said, came):
    """Sum of |error| over the sum of what came."""
    return sum(abs(s - c) for s, c in zip(said, came)) / (sum(came) or 1)


def pinball(said, came, probability):
    """Mean quantile loss over the mean of what came."""
    total = sum(
        max(probability * (c - s), (probability - 1) * (c - s)) for s, c in zip(said, came)
    )
    return total / (sum(came) or 1)


def coverage(intervals, came):
    return sum(low <= c <= high for (low, high), c in zip(intervals, came)) / len(came)


def binomial_band(n, probability, confidence=0.95):
    """The shares between which `confidence` of the outcomes of n trials lie, equal tails."""
    tail = (1 - confidence) / 2
    below, low, high = 0.0, 0, n
    for k in range(n + 1):
        mass = math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(probability)
            + (n - k) * math.log(1 - probability)
        )
        if below + mass <= tail:
            low = k + 1
        if below <= 1 - tail:
            high = k
        below += mass
    return low / n, high / n


def at(quantiles, probability):
    """As Forecast::at() does it."""
    if probability <= QUANTILES[0]:
        return quantiles[0]
    for i in range(1, len(QUANTILES)):
        if probability <= QUANTILES[i]:
            share = (probability - QUANTILES[i - 1]) / (QUANTILES[i] - QUANTILES[i - 1])
            return quantiles[i - 1] + share * (quantiles[i] - quantiles[i - 1])
    return quantiles[-1]


def interval(quantiles, probability):
    """As Forecast::interval() does it."""
    low = at(quantiles, (1 - probability) / 2)
    if low <= 0:
        return 0, at(quantiles, probability)
    return low, at(quantiles, (1 + probability) / 2)
