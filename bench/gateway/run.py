#!/usr/bin/env python3
"""In a cluster: discovery by EndpointSlices under churn, and the endpoint picker.

    STATOR_BIN=… STATOR_BUILD=… STATOR_TOKENIZERS=… bench/gateway/run.py [--quick] [--only PART …]

See bench/README.md. With --only, the rows of the other parts stay in the file as they are.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TEST = HERE.parents[1] / "test"
sys.path[:0] = [str(HERE.parent), str(TEST / "support")]

import epp  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402

RESULT = results.RESULTS / "gateway.json"
ENDPOINTS, CHANGES_PER_S = 5_000, 500
SMALL, LARGE = 500, 50_000


def run_discovery(endpoints, seconds):
    program = pathlib.Path(os.environ["STATOR_BUILD"]) / "bench" / "bench_discovery"
    done = subprocess.run(
        [program, str(endpoints), str(CHANGES_PER_S), str(seconds)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode != 0:
        raise SystemExit(f"bench_discovery failed: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def discovery(quick):
    """Rows and what a reader must know. Fleets of three sizes take turns."""
    runs, seconds = (1, 2) if quick else (3, 5)
    seen = {n: [] for n in (SMALL, ENDPOINTS, LARGE)}
    for _ in range(runs):
        for n, of in seen.items():
            of.append(run_discovery(n, seconds))

    def figures(n, key):
        return [r[key] for r in seen[n]]

    def row(name, n, key, unit, target=None, scale=1.0):
        values = [v * scale for v in figures(n, key)]
        note = f"runs: {min(values):.4g} to {max(values):.4g}"
        return Row(f"discovery.{name}", statistics.median(values), unit, target=target, note=note)

    pairs = [
        large / small
        for large, small in zip(
            figures(LARGE, "cpu_us_per_change"), figures(SMALL, "cpu_us_per_change"), strict=True
        )
    ]
    rows = [
        row("visible_p50", ENDPOINTS, "p50_ms", "ms"),
        row("visible_p99", ENDPOINTS, "p99_ms", "ms", "<= 50"),
        row("cpu_of_a_core", ENDPOINTS, "cpu_share", "%", "<= 10", 100),
        row("cpu_per_change", ENDPOINTS, "cpu_us_per_change", "us"),
        row(f"cpu_per_change_{SMALL}", SMALL, "cpu_us_per_change", "us"),
        row(f"cpu_per_change_{LARGE}", LARGE, "cpu_us_per_change", "us"),
        Row(
            "discovery.cpu_per_change_large_over_small",
            statistics.median(pairs),
            "1",
            target="<= 1.5",
            note=f"{LARGE} endpoints over {SMALL}: 1 is no growth at all",
        ),
        row("first_list", ENDPOINTS, "list_ms", "ms"),
        row(f"first_list_{LARGE}", LARGE, "list_ms", "ms"),
    ]
    about = {
        "endpoints": ENDPOINTS,
        "changes_per_s": CHANGES_PER_S,
        "endpoints_per_slice": 100,
        "bytes_per_event": seen[ENDPOINTS][0]["event_bytes"],
        "runs": runs,
        "seconds_per_run": seconds,
        "visible": "from the API server's write to the source's call, on loopback without TLS",
        "cpu": "of the thread that reads the watch and keeps the set",
    }
    return rows, about


PARTS = {"discovery": discovery, "epp": epp.epp}


def kept(others):
    """Rows of parts that are not measured now, as the file has them."""
    if not RESULT.is_file():
        return [], {}
    held = json.loads(RESULT.read_text())
    rows = []
    for r in held["rows"]:
        if r["name"].split(".")[0] in others:
            fields = {k: v for k, v in r.items() if k != "met"}
            rows.append(Row(**fields))
    return rows, {k: v for k, v in held["about"].items() if k in others}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, and no file is written")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    if "STATOR_BUILD" not in os.environ:
        parser.error("STATOR_BUILD is not set: the build folder")
    rows, about = kept(set(PARTS) - set(arguments.only))
    load = os.getloadavg()[0]
    for part in arguments.only:
        more, said = PARTS[part](arguments.quick)
        rows += more
        about[part] = {**said, "load_average_before": round(load, 1)}
    print(results.table(rows))
    if not arguments.quick:
        only = "" if set(arguments.only) == set(PARTS) else " --only " + " ".join(arguments.only)
        results.write(RESULT, "./dev bench gateway" + only, rows, about)
    missed = [r.name for r in rows if r.met is False]
    return f"missed: {', '.join(missed)}" if missed else 0


if __name__ == "__main__":
    sys.exit(main())
