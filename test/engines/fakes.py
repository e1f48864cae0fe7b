"""Starts fake engines as processes of their own, and asks them."""

import http.client
import json
import pathlib
import subprocess
import sys
import urllib.parse

FOLDER = pathlib.Path(__file__).resolve().parent


class Fake:
    def __init__(
        self, kind="vllm", version=None, quirks=(), events=True, dp=1, role=None, **traits
    ):
        command = [sys.executable, str(FOLDER / "fake_engine.py"), "--kind", kind, "--dp", str(dp)]
        command += ["--version", version] if version else []
        command += ["--events"] if events else []
        command += ["--role", role] if role else []
        for quirk in quirks:
            command += ["--quirk", quirk]
        for name, value in traits.items():
            command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        self.kind, self.command = kind, command
        self.ports = []
        self.start()

    def start(self):
        """Again on the same ports, if it ran before."""
        self.process = subprocess.Popen(
            self.command + self.ports, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        assert line, "the fake engine did not start"
        said = json.loads(line)
        self.url, self.events, self.replay = said["http"], said["events"], said["replay"]
        self.address = urllib.parse.urlsplit(self.url)
        each = [a.rpartition(":")[2] for pair in zip(self.events, self.replay) for a in pair]
        self.ports = ["--port", str(self.address.port), "--event-ports", *each]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def with_trait(self, name, value):
        self.command += ["--set", f"{name}={json.dumps(value)}"]

    def connect(self):
        return http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=60)

    def ask(self, method, path, body=None, headers=None):
        connection = self.connect()
        data = body if isinstance(body, str) else json.dumps(body)
        connection.request(method, path, data if method == "POST" else None, headers or {})
        answer = connection.getresponse()
        out = answer.status, answer.read()
        connection.close()
        return out

    def json(self, method, path, body=None, headers=None):
        status, data = self.ask(method, path, body, headers)
        return status, json.loads(data)

    def set(self, **traits):
        return self.json("POST", "/fake/set", traits)

    @property
    def state(self):
        return self.json("GET", "/fake/state")[1]
