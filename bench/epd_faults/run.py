#!/usr/bin/env python3
"""Encode, prefill and decode workers killed and their transfers cut, hundreds of times under load: requests, memory.

    STATOR_BIN=… [STATOR_NIXL=…] bench/epd_faults/run.py [--quick] [--faults N] [--seed N] [--output FILE]

See bench/README.md.
"""

import argparse
import collections
import os
import pathlib
import random
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import epd_fleet  # noqa: E402
from epd_fleet import CUT, KILLS  # noqa: E402
from harness import results  # noqa: E402
from harness.results import Row  # noqa: E402

WARM_UP_SECONDS = 15
REST_SECONDS = 12  # longer than leases, and than memory is kept for the next handoffs


class Phase:
    """Faults of these kinds in a fleet of its own, whose handoffs go by one method."""

    def __init__(self, args, method, faults, count):
        self.args, self.method, self.count = args, method, count
        self.name = f"{method}, {'kills and cuts' if CUT in faults else 'kills'}"
        self.rng = random.Random(f"{args.seed} {method}")
        self.order = epd_fleet.order_of_faults(faults, count, self.rng)
        self.done = collections.Counter()

    def run(self):
        nixl = self.args.nixl if self.method == "nixl" else None
        with tempfile.TemporaryDirectory(prefix="stator-faults-") as folder:
            with epd_fleet.EpdFleet(folder, self.method, nixl) as fleet:
                with self.load(fleet):
                    time.sleep(2 if self.args.quick else WARM_UP_SECONDS)
                self.rest(fleet)
                self.before = fleet.sizes()
                start = time.monotonic()
                with self.load(fleet) as load:
                    for fault in self.order:
                        self.done[fault] += fleet.do(fault, self.rng)
                        self.progress(load)
                self.seconds = time.monotonic() - start
                self.load_seen = load
                self.rest(fleet)
                # What a restarted process had no time for: a little of the same load.
                with self.load(fleet):
                    time.sleep(2)
                self.unclaimed = fleet.settle()
                self.rest(fleet)
                self.after = fleet.sizes()
                self.handoffs = fleet.handoffs()
                self.cuts = fleet.cuts()
        print(file=sys.stderr)
        for number, answer in load.odd[:5]:
            print(f"  request {number}: {answer}: {answer.text!r}", file=sys.stderr)
        print(f"  handoffs of the last processes: {dict(self.handoffs)}", file=sys.stderr)
        return self

    def load(self, fleet):
        return epd_fleet.Load(fleet.frontend, self.args.bodies, self.args.expected)

    def rest(self, fleet):
        fleet.settle()
        time.sleep(3 if self.args.quick else REST_SECONDS)

    def progress(self, load):
        print(
            f"\r{self.name}: {sum(self.done.values())} of {self.count} faults, "
            f"{dict(load.outcomes)}\x1b[K",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def rows(self):
        got = self.load_seen.outcomes
        asked = sum(got.values())
        errors = "; ".join(f"{n} × {what}" for what, n in self.load_seen.errors.most_common(5))
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.done.items()))
        if self.cuts:
            kinds += "; " + ", ".join(f"{n} {how}" for how, n in sorted(self.cuts.items()))
        rows = [
            self.row("faults", sum(self.done.values()), "faults", f">= {self.count}", kinds),
            self.row("requests", asked, "requests", None, f"in {self.seconds:.0f} s"),
            self.row("ended right", got["right"], "requests"),
            self.row("clients that left", got["left"], "requests"),
            self.row("ended with a clear error", got["clear error"], "requests", None, errors),
        ]
        for odd in ("wrong text", "hanging", "unclear end"):
            rows.append(self.row(odd, got[odd.split()[0]], "requests", "<= 0"))
        rows.append(self.row("slowest request", self.load_seen.slowest, "s"))
        rows.append(self.row("left unclaimed", self.unclaimed, "bytes", "<= 0"))
        for process, before in self.before.items():
            rows += self.rows_of_size(process, before, self.after[process])
        return rows

    def rows_of_size(self, process, before, after):
        survived = "survived all" if before.pid == after.pid else "was killed and restarted"
        note = f"{before}, then {after}; {survived}"
        bound = max(10, before.mib / 10)
        of = f"of {process} above its base line"
        return [
            self.row(f"memory {of}", after.mib - before.mib, "MiB", f"<= {bound:.0f}", note),
            self.row(
                f"descriptors {of}", after.descriptors - before.descriptors, "number", "<= 0"
            ),
            self.row(f"shared memory {of}", after.shared - before.shared, "number", "<= 0"),
            self.row(f"threads {of}", after.threads - before.threads, "number", "<= 0"),
        ]

    def row(self, what, value, unit, target=None, note=None):
        return Row(f"{self.name}: {what}", value, unit, target=target, note=note or None)


def phases(args):
    """A quarter of the faults are cuts over TCP, the rest kills over each method."""
    quarter = max(1, args.faults // 4)
    kills = 3 * quarter
    of_nixl = kills // 15 * 3 if args.nixl else 0
    of_shm = (kills - of_nixl) // 6 * 3
    of_tcp = kills - of_nixl - of_shm
    out = [Phase(args, "shm", KILLS, of_shm)]
    tcp = Phase(args, "tcp", (*KILLS, CUT), of_tcp + args.faults - kills)
    tcp.order = [KILLS[i % 3] for i in range(of_tcp)] + [CUT] * (args.faults - kills)
    tcp.rng.shuffle(tcp.order)
    out.append(tcp)
    if of_nixl:
        out.append(Phase(args, "nixl", KILLS, of_nixl))
    return [phase for phase in out if phase.order]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the faults")
    parser.add_argument("--faults", type=int, default=200, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=pathlib.Path, default=None)
    args = parser.parse_args()
    if args.quick:
        args.faults = min(args.faults, 20)
    args.nixl = os.environ.get("STATOR_NIXL")
    args.bodies = epd_fleet.requests(100)
    with tempfile.TemporaryDirectory(prefix="stator-faults-") as folder:
        args.expected = epd_fleet.whole_answers(folder, args.bodies)
    start = time.monotonic()
    rows = []
    for phase in phases(args):
        rows += phase.run().rows()
    seconds = time.monotonic() - start
    rows.insert(0, Row("whole run", seconds, "s", target="<= 600"))
    print(results.table(rows))
    output = args.output or (None if args.quick else results.RESULTS / "epd_faults.json")
    if output is None:
        return
    about = {
        "workers": "2 of each role, mock engine, on loopback; the second of each role is killed",
        "requests_at_once": 8,
        "seed": args.seed,
        "nixl": bool(args.nixl),
        "base_line": f"{WARM_UP_SECONDS} s of the same load without faults, then rest",
    }
    results.write(output, " ".join(["./dev bench epd_faults", *sys.argv[1:]]), rows, about)
    print(f"written: {output}")


if __name__ == "__main__":
    main()
