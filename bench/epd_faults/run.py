#!/usr/bin/env python3
"""Encode, prefill and decode workers killed, and transfers cut at random bytes, under load: what becomes of requests and memory.

    STATOR_BIN=… [STATOR_NIXL=…] bench/epd_faults/run.py [--quick] [--faults N]

See bench/README.md.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import epd_fleet  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402

WARM_UP_S = 10
REST_S = 25  # longer than leases, and than memory is kept for the next handoffs
TRIES = 5
KILLS = epd_fleet.FAULTS[:3]
CUTS = epd_fleet.FAULTS[3:]


def phase(args, name, method, faults, count, nixl=None):
    """Faults of these kinds in a fleet of its own; rows of what came of it."""
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="stator-faults-") as folder:
        with epd_fleet.EpdFleet(folder, method, nixl) as fleet:
            with epd_fleet.Load(fleet.frontend, args.bodies, args.expected):
                time.sleep(2 if args.quick else WARM_UP_S)
            fleet.settle()
            time.sleep(REST_S)
            before = fleet.sizes()
            done, start = 0, time.monotonic()
            with epd_fleet.Load(fleet.frontend, args.bodies, args.expected) as load:
                for i, fault in enumerate(epd_fleet.order_of_faults(faults, count, args.seed)):
                    # A cut waits for a transfer, which may not come that way for a while.
                    done += any(fleet.do(fault, rng) for _ in range(TRIES))
                    print(
                        f"\r{name}: {i + 1} of {count} faults, {dict(load.outcomes)}\x1b[K",
                        end="",
                        file=sys.stderr,
                        flush=True,
                    )
            seconds = time.monotonic() - start
            print(file=sys.stderr)
            for number, answer in load.odd[:5]:
                print(f"  request {number}: {answer}", file=sys.stderr)
            left = fleet.settle()
            time.sleep(REST_S)
            after = fleet.sizes()
            cuts = sum((p.cuts for p in fleet.proxies), start=type(load.outcomes)())
    got, asked = load.outcomes, sum(load.outcomes.values())
    note = f"{seconds:.0f} s, {asked} requests"
    if cuts:
        note += ", " + ", ".join(f"{n} by {how}" for how, n in sorted(cuts.items()))
    rows = [
        Row(f"{name}: faults", done, "faults", target=f">= {count}", note=note),
        Row(f"{name}: requests that ended right", 100 * got["right"] / max(1, asked), "%"),
        Row(
            f"{name}: requests that ended with a clear error",
            got["clear error"],
            "requests",
            note="; ".join(load.errors) or None,
        ),
    ]
    for odd in ("wrong", "hanging", "unclear"):
        rows.append(Row(f"{name}: requests that ended {odd}", got[odd], "requests", target="<= 0"))
    rows.append(Row(f"{name}: handoffs left unclaimed", left, "bytes", target="<= 0"))
    for process, (pid, mib, descriptors, threads) in after.items():
        pid_before, mib_before, descriptors_before, threads_before = before[process]
        if pid != pid_before:
            continue  # it was killed
        rows.append(
            Row(
                f"{name}: memory of {process} above its base line",
                mib - mib_before,
                "MiB",
                target=f"<= {max(10, mib_before / 10):.0f}",
                note=f"{mib_before:.0f} to {mib:.0f} MiB; descriptors {descriptors_before} to "
                f"{descriptors}, threads {threads_before} to {threads}",
            )
        )
    return rows


def others(path, new):
    """Rows of an earlier run that are not measured anew."""
    if not path.exists():
        return []
    fields = {field.name for field in dataclasses.fields(Row)}
    anew = {row.name.split(":")[0] for row in new}
    old = [Row(**{k: v for k, v in row.items() if k in fields})
           for row in json.loads(path.read_text())["rows"]]
    return [row for row in old if row.name.split(":")[0] not in anew]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the faults")
    parser.add_argument("--faults", type=int, default=200, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", choices=("shm", "tcp", "nixl", "cuts"), help="the others' rows stay"
    )
    args = parser.parse_args()
    if args.quick:
        args.faults = min(args.faults, 20)
    quarter = max(1, args.faults // 4)
    args.bodies = epd_fleet.requests(100)
    with tempfile.TemporaryDirectory(prefix="stator-faults-") as folder:
        args.expected = epd_fleet.whole_answers(folder, args.bodies)
    nixl = os.environ.get("STATOR_NIXL")
    kills = 3 * quarter
    of_nixl = kills // 5 if nixl else 0
    of_shm = (kills - of_nixl) // 2
    phases = {
        "shm": ("shm, workers killed", "shm", KILLS, of_shm),
        "tcp": ("tcp, workers killed", "tcp", KILLS, kills - of_nixl - of_shm),
        "nixl": ("nixl, workers killed", "nixl", KILLS, of_nixl, nixl),
        "cuts": ("tcp, transfers cut", "tcp", CUTS, args.faults - kills),
    }
    rows = []
    for name in args.only or phases:
        if name != "nixl" or nixl:
            rows += phase(args, *phases[name])
    print(results.table(rows))
    if not args.quick:
        about = {"workers": "2 of each role, mock engine", "requests_at_once": 8}
        output = results.RESULTS / "epd_faults.json"
        if args.only:
            rows = others(output, rows) + rows
        results.write(output, " ".join(["./dev bench epd_faults", *sys.argv[1:]]), rows, about)
        print(f"written: {output}")


if __name__ == "__main__":
    main()
