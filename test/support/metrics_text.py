"""Reads Prometheus text as far as our tests need it."""

import re
import urllib.request

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """Samples of one scrape. Raises ValueError on a line that is not exposition format 0.0.4."""

    def __init__(self, text):
        self.samples = []
        self.types = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.types[name] = kind
            elif line and not line.startswith("#"):
                match = _SAMPLE.match(line)
                if not match:
                    raise ValueError(f"not a sample: {line!r}")
                name, labels, value = match.groups()
                self.samples.append((name, dict(_LABEL.findall(labels or "")), float(value)))

    def names(self):
        return {name for name, _, _ in self.samples}

    def sum(self, name, **labels):
        """All samples of that name which carry these labels, added up; KeyError where the name
        is unknown."""
        found = [
            value
            for n, have, value in self.samples
            if n == name and all(have.get(k) == v for k, v in labels.items())
        ]
        if not found and name not in self.names():
            raise KeyError(f"{name}; there are {sorted(self.names())}")
        return sum(found)


def worker_metrics(worker):
    """Of a worker that was started with `--worker-http 127.0.0.1:0`."""
    port = int(re.search(r"Health and metrics are shown\. port=(\d+)", worker.log()).group(1))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return Metrics(answer.read().decode())
