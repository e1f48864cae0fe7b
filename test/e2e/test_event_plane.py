"""`stator events tail`: what workers publish, and who may read it."""

import json
import subprocess

import pytest
import stator_process
from answers import stream_completion
from conftest import wait_until


class Tail(stator_process.ChildProcess):
    """`stator events tail --json`; its lines are in its log."""

    name = "events tail"

    def __init__(self, folder, **options):
        super().__init__()
        self.folder = folder
        self.options = options

    def command(self):
        flags = stator_process.flags_of(self.options)
        return [stator_process.binary(), "events", "tail", "--json", *flags]

    def environment(self):
        return stator_process.fleet_environment(self.folder)

    def is_ready(self):
        return "Listening to a worker's events" in self.log()

    def messages(self, topic=None):
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        all_ = [json.loads(line) for line in lines]
        return [m for m in all_ if topic is None or m["topic"] == topic]


@pytest.fixture
def tail(fleet):
    def start(**options):
        child = Tail(fleet.folder, **options)
        fleet.started.append(child)
        return child.start()

    return start


def keygen(path):
    done = subprocess.run(
        [stator_process.binary(), "events", "keygen"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        env=stator_process.child_environment(),
    )
    path.write_text(done.stdout)
    path.chmod(0o600)
    words = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(words) == {"public", "secret"}
    assert {len(key) for key in words.values()} == {40}
    return words["public"]


def test_lifecycle_and_kv_events_of_a_real_worker(fleet, tail):
    worker = fleet.worker(
        "w1",
        stator_process.model(),
        engine_threads=1,
        context=2048,
        served_model_name="small",
    ).start()
    frontend = fleet.frontend().wait_workers("w1")
    listener = tail(topic=["kv", "lifecycle", "load"])
    # A subscription takes a moment to reach the publisher: ask until something is heard.
    prompt = "One two three four five six seven eight nine ten. " * 8

    def stored():
        answer = stream_completion(frontend, prompt, 20, model="small")
        assert answer.complete, str(answer)
        return listener.messages("kv")

    messages = wait_until(stored, "KV events are heard", seconds=40)
    for message in messages:
        assert message["worker"] == "w1"
        assert message["incarnation"] == frontend.workers()["w1"]["incarnation"]
        assert message["rank"] == 0
    text = json.dumps([m["payload"] for m in messages])
    assert "stored" in text, text[:500]
    wait_until(lambda: listener.messages("load"), "load is told")

    worker.terminate()
    assert worker.wait() == 0
    states = wait_until(
        lambda: [m["payload"] for m in listener.messages("lifecycle")], "its end is told"
    )
    assert "drain" in json.dumps(states), states
    for topic in ("kv", "load", "lifecycle"):
        sequences = [m["sequence"] for m in listener.messages(topic) if not m["heartbeat"]]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences))), topic


def test_count_ends_the_tail(fleet, tail):
    fleet.echo_workers("w1")
    frontend = fleet.frontend().wait_workers("w1")
    listener = tail(count=3)

    def ended():
        stream_completion(frontend, "hello", 50)
        return listener.process.poll() is not None

    wait_until(ended, "three events end it")
    assert listener.wait() == 0
    assert len(listener.messages()) == 3


def test_curve_keys(fleet, tail):
    ours, theirs, workers = (fleet.folder / f"{name}.keys" for name in ("a", "b", "w"))
    our_public, _ = keygen(ours), keygen(theirs)
    keygen(workers)
    allowed = fleet.folder / "allowed"
    allowed.write_text(f"# who may listen\npublic {our_public}\n")
    (worker,) = fleet.echo_workers("w1", events_key_file=workers, events_allow_file=allowed)
    frontend = fleet.frontend().wait_workers("w1")
    right, wrong = tail(events_key_file=ours), tail(events_key_file=theirs)

    def heard():
        assert stream_completion(frontend, "hello", 50).complete
        return right.messages()

    wait_until(heard, "the one with an allowed key hears something")
    # As often again: whatever the other one could hear, it would have by now.
    for _ in range(5):
        assert stream_completion(frontend, "hello", 50).complete
    more = len(right.messages())
    worker.terminate()
    assert worker.wait() == 0
    wait_until(lambda: len(right.messages()) > more, "its end is told too")
    assert wrong.messages() == []
    assert wrong.process.poll() is None


@pytest.mark.parametrize("text", ["", "public abc\nsecret def\n", "x" * 100])
def test_unusable_key_file_is_exit_2(fleet, text):
    path = fleet.folder / "broken.keys"
    path.write_text(text)
    path.chmod(0o600)
    worker = fleet.worker("w1", engine="echo", events_key_file=path)
    with pytest.raises(stator_process.StartError, match="ended with code 2") as caught:
        worker.start()
    assert "broken.keys" in str(caught.value)
