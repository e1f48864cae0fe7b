"""Rows of a benchmark, their table on the terminal and their file in bench/results/."""

import dataclasses
import datetime
import json
import pathlib
import statistics
import subprocess

from harness import procfs

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"


@dataclasses.dataclass
class Row:
    """One measured number. `target` is a text such as ">= 1.0"; it is held against `ratio` where
    there is a peer,
    else against `value`. `pairs` are the ratios of the single runs, whose median `ratio` is."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    target: str | None = None
    pairs: list[float] | None = None
    note: str | None = None

    @property
    def met(self):
        if self.target is None:
            return None
        relation, bound = self.target.split()
        subject = self.value if self.ratio is None else self.ratio
        return subject >= float(bound) if relation == ">=" else subject <= float(bound)

    def as_json(self):
        def short(number):
            return None if number is None else float(f"{number:.5g}")

        out = {
            "name": self.name,
            "value": short(self.value),
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": short(self.peer_value),
            "ratio": short(self.ratio),
            "target": self.target,
            "met": self.met,
        }
        if self.pairs is not None:
            out["pairs"] = [short(p) for p in self.pairs]
        if self.note is not None:
            out["note"] = self.note
        return out


def paired_row(name, unit, ours, theirs, peer, target=None, note=None):
    """Medians of both sides and the median of the ratios ours / theirs of runs that were
    neighbours in time."""
    pairs = [a / b for a, b in zip(ours, theirs) if b]
    return Row(
        name,
        statistics.median(ours),
        unit,
        peer,
        statistics.median(theirs),
        statistics.median(pairs) if pairs else None,
        target,
        pairs,
        note,
    )


def _commit():
    result = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
    )
    return result.stdout.strip() or "unknown"


def write(path, command, rows, about):
    """Writes the result file. `about` holds what else a reader must know: versions, settings,
    how quiet it was."""
    document = {
        "cpu_model": procfs.cpu_model(),
        "cores": procfs.cores(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "command": command,
        "about": about,
        "rows": [row.as_json() for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def _number(value):
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows):
    """The rows as lines of text, columns aligned."""
    head = ["", "stator", "peer", "ratio", "target", ""]
    verdict = {None: "", True: "met", False: "MISSED"}
    body = [
        [
            f"{row.name} [{row.unit}]",
            _number(row.value),
            _number(row.peer_value),
            _number(row.ratio),
            row.target or "",
            verdict[row.met],
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join("  " + cell.rjust(widths[i + 1]) for i, cell in enumerate(line[1:]))
        for line in [head, *body]
    )
