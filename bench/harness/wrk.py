"""Load by wrk: the same request over and over on some connections."""

import json
import pathlib
import re
import subprocess
import tempfile

SCRIPT = pathlib.Path(__file__).resolve().with_name("chat.lua")


class WrkLoad:
    """Posts `payload` to `url`. Every answer must be a 200."""

    def __init__(self, url, payload, connections, core):
        self._body = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(payload, self._body)
        self._body.flush()
        self._command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}"]
        self._rest = ["-s", str(SCRIPT), url, "--", self._body.name]

    def run(self, seconds, explain=lambda: ""):
        """Some seconds of it. `explain` gives what to say beside wrk's words when it fails."""
        command = [*self._command, f"-d{seconds}s", *self._rest]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        found = re.search(r"RESULT requests=(\d+) refused=(\d+) errors=(\d+)", done.stdout)
        if not found or found.group(2) != "0" or found.group(3) != "0":
            raise RuntimeError(f"wrk failed:\n{done.stdout}{done.stderr}\n{explain()}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._body.close()
