#!/usr/bin/env python3
"""How far forecasts of arrivals and lengths are from what came, for every predictor.

    STATOR_BUILD=… STATOR_DATA=… bench/planner/run.py [--quick]

See bench/README.md.
"""

import argparse
import concurrent.futures
import math
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import losses  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402

FIXED = ["constant", "ewma", "kalman", "arima", "seasonal"]
REFERENCE = "reference-kalman"
MIX = "mix"
PREDICTORS = [*FIXED, REFERENCE, MIX]
WINDOWS_S = [10, 30, 60]
START_UP_S = 120
SERIES = ["arrivals", "input length", "output length"]
MEDIAN = losses.QUANTILES.index(0.5)
MANY = 300  # scored windows from which on the narrower bound holds


def forecasts(args, predictor, window_s, counts, horizons, series):
    """Per window and horizon (mean, quantiles), said once that window had been seen."""
    command = [args.build / "bench" / "bench_forecasts", predictor, str(window_s)]
    command += ["counts" if counts else "values", *map(str, horizons)]
    text = "".join("-\n" if value is None else f"{value!r}\n" for value in series)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"bench_forecasts {predictor} failed:\n{done.stderr}")
    said = []
    for line in done.stdout.splitlines():
        numbers = [list(map(float, part.split())) for part in line.rstrip("\t").split("\t")]
        said.append([(mean, quantiles) for mean, *quantiles in numbers])
    return said, [float(us) for us in done.stderr.split()]


class Score:
    """What a predictor was worth in one trace, at one window and horizon."""

    def __init__(self, said, came):
        """`said`: per window (mean, quantiles) of each series; `came`: per window their values."""
        n = [c[0] for c in came]
        means = [[mean for mean, _ in window] for window in said]
        medians = [[quantiles[MEDIAN] for _, quantiles in window] for window in said]
        self.windows = len(came)
        self.loss_of_mean = losses.reference_loss(means, came)
        self.loss_of_median = losses.reference_loss(medians, came)
        self.wape = losses.wape([m[0] for m in medians], n)
        self.wape_tokens = [
            losses.wape(
                [m[0] * m[i] for m in medians], [c[0] * (c[i] or 0) for c in came]
            )
            for i in (1, 2)
        ]
        self.pinball = [
            losses.pinball([losses.at(w[0][1], p) for w in said], n, p) for p in (0.5, 0.9, 0.99)
        ]
        self.coverage = []
        self.band = []
        for i in range(len(SERIES)):
            seen = [(w[i][1], c[i]) for w, c in zip(said, came) if c[i] is not None]
            intervals = [losses.interval(quantiles, 0.9) for quantiles, _ in seen]
            self.coverage.append(losses.coverage(intervals, [value for _, value in seen]))
            self.band.append(losses.binomial_band(len(seen), 0.9))

    def outside(self, i):
        """How far the coverage of a series is out of the band."""
        low, high = self.band[i]
        return max(0.0, low - self.coverage[i], self.coverage[i] - high)

    def note(self):
        pinball = "/".join(f"{p:.3g}" for p in self.pinball)
        tokens = "/".join(f"{100 * w:.1f}" for w in self.wape_tokens)
        coverage = "/".join(f"{100 * c:.1f}" for c in self.coverage)
        return (
            f"of its mean {self.loss_of_mean:.4g}; WAPE {100 * self.wape:.1f} %, of input/output "
            f"tokens {tokens} %; pinball 0.5/0.9/0.99 {pinball}; 90 % intervals hold {coverage} %"
        )


def scores(args, pool, requests, window_s):
    """Score by (horizon in windows, predictor), for the next window and the start-up horizon."""
    windows = losses.windows_of(requests, window_s)
    horizons = [1, max(2, math.ceil(START_UP_S / window_s))]
    jobs = {
        predictor: [
            pool.submit(
                forecasts, args, predictor, window_s, i == 0, horizons, [w[i] for w in windows]
            )
            for i in range(len(SERIES))
        ]
        for predictor in PREDICTORS
    }
    out = {}
    for predictor, runs in jobs.items():
        said = [run.result()[0] for run in runs]
        for index, steps in enumerate(horizons):
            scored = range(max(int(len(windows) * losses.WARM_UP), steps), len(windows))
            out[steps, predictor] = Score(
                [[series[t - steps][index] for series in said] for t in scored],
                [windows[t] for t in scored],
            )
    return out


def said_loss(predictor, score):
    """The reference says a point. Of ours the median counts; of those that the mix is held against,
    whichever is better of median and mean."""
    if predictor == REFERENCE:
        return score.loss_of_mean
    if predictor == MIX:
        return score.loss_of_median
    return min(score.loss_of_median, score.loss_of_mean)


def table(title, scored):
    lines = [
        f"{title}: {next(iter(scored.values())).windows} windows",
        f"  {'':18}{'loss':>8}{'WAPE':>8}{'0.5':>8}{'0.9':>8}{'0.99':>8}   90 % intervals hold",
    ]
    for predictor, score in scored.items():
        lines.append(
            f"  {predictor:18}{said_loss(predictor, score):8.4f}{score.wape:8.3f}"
            + "".join(f"{p:8.4f}" for p in score.pinball)
            + "   "
            + " ".join(f"{100 * c:5.1f}" for c in score.coverage)
        )
    return "\n".join(lines)


def trace_rows(args, pool, name, requests):
    """(rows, ratios to the best fixed one, ratios to the reference's, coverages out of their band)"""
    rows, to_best, to_reference, outside = [], [], [], []
    for window_s in WINDOWS_S:
        by_horizon = scores(args, pool, requests, window_s)
        for steps in sorted({steps for steps, _ in by_horizon}):
            scored = {p: by_horizon[steps, p] for p in PREDICTORS}
            title = f"{name}, {window_s} s, {'next window' if steps == 1 else f'{START_UP_S} s on'}"
            print(table(title, scored) + "\n", flush=True)
            loss = {p: said_loss(p, score) for p, score in scored.items()}
            mix = scored[MIX]
            for predictor in PREDICTORS[:-1]:
                rows.append(
                    Row(
                        f"{title}: loss, {predictor}",
                        loss[predictor],
                        "log",
                        note=scored[predictor].note(),
                    )
                )
            best = min(FIXED, key=loss.get)
            bound = "<= 1.02" if mix.windows >= MANY else "<= 1.05"
            ratio = loss[MIX] / loss[best]
            rows.append(
                Row(
                    f"{title}: loss, mix against the best",
                    loss[MIX],
                    "log",
                    best,
                    loss[best],
                    ratio,
                    bound,
                    note=f"{mix.windows} windows; {mix.note()}",
                )
            )
            to_best.append(ratio)
            to_reference.append(loss[MIX] / loss[REFERENCE])
            for i, series in enumerate(SERIES):
                low, high = mix.band[i]
                rows.append(
                    Row(
                        f"{title}: mix, coverage of {series} out of its band by",
                        100 * mix.outside(i),
                        "%",
                        target="<= 0",
                        note=f"{100 * mix.coverage[i]:.1f} % in intervals of 90 %; the band is "
                        f"{100 * low:.1f} to {100 * high:.1f} %",
                    )
                )
                outside.append(mix.outside(i) > 0)
    return rows, to_best, to_reference, outside


def day(days):
    """Windows of 10 s with a daily swing; no two alike."""
    return [
        round(100 + 80 * math.sin(2 * math.pi * t / 8640) + 20 * math.sin(12.9898 * t * t))
        for t in range(8640 * days)
    ]


def cost(args):
    rows = []
    _, (mean_us, _, after_day) = forecasts(args, MIX, 10, True, [1, 12], day(1))
    _, (_, _, after_more) = forecasts(args, MIX, 10, True, [1, 12], day(1 if args.quick else 5))
    rows.append(
        Row(
            "a window observed and two forecasts, mix, CPU",
            mean_us,
            "µs",
            target="<= 1000",
            note="a day of windows of 10 s, the mean over them",
        )
    )
    rows.append(
        Row(
            "memory, five days over one day",
            after_more / 1024,
            "MiB",
            "one day",
            after_day / 1024,
            after_more / after_day,
            "<= 1.1",
            note="peak of the process",
        )
    )
    return rows


def traces(quick):
    folder = os.environ.get("STATOR_DATA")
    if not folder or not pathlib.Path(folder).is_dir():
        sys.exit("$STATOR_DATA names no folder with traces; see stator/workload/README.md")
    found = {}
    for path in sorted(pathlib.Path(folder).iterdir()):
        requests = losses.read_trace(path) if path.suffix in (".jsonl", ".csv") else None
        if requests:
            found[path.stem] = requests
    if not found:
        sys.exit(f"{folder} has no trace in Mooncake's or Azure's format")
    return dict([next(iter(found.items()))]) if quick else found


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one trace; writes no result")
    parser.add_argument("--output", type=pathlib.Path, help="result file")
    args = parser.parse_args()
    if "STATOR_BUILD" not in os.environ:
        parser.error("STATOR_BUILD is not set: give the folder of the release build")
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
    if args.output is None and not args.quick:
        args.output = results.RESULTS / "planner.json"
    return args


def main():
    args = arguments()
    rows, to_best, to_reference, outside = [], [], [], []
    found = traces(args.quick)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, requests in found.items():
            more = trace_rows(args, pool, name, requests)
            for total, part in zip((rows, to_best, to_reference, outside), more):
                total += part
    summary = [
        Row(
            "mix better than the best fixed predictor, share of all",
            sum(ratio < 1 for ratio in to_best) / len(to_best),
            "share",
            target=">= 0.5",
            note=f"{len(to_best)} of trace, window and horizon; ratios "
            f"{min(to_best):.3f} to {max(to_best):.3f}, median {statistics.median(to_best):.3f}",
        ),
        Row(
            "mix against the reference's Kalman filter, mean of the ratios of losses",
            statistics.mean(to_reference),
            "",
            target="<= 0.95",
            note=f"{min(to_reference):.3f} to {max(to_reference):.3f}",
        ),
        Row(
            "coverages of the mix out of their band",
            sum(outside),
            "",
            note=f"of {len(outside)}; by chance alone one in twenty would be",
        ),
        *cost(args),
    ]
    print(results.table([r for r in rows if r.target] + summary))
    if args.output is not None:
        about = {
            "traces": list(found),
            "loss": "0.4|dlog1p(n*isl)| + 0.4|dlog1p(n*osl)| + 0.1|dlog1p isl| + 0.1|dlog1p osl|",
            "warm_up_share": losses.WARM_UP,
            "load_average": round(os.getloadavg()[0], 1),
        }
        command = " ".join(["./dev bench planner", *sys.argv[1:]])
        results.write(args.output, command, rows + summary, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
