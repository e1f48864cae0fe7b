"""A whole frontend: CPU per request beside Dynamo's with its fast tokenizer, and passing text through
beside vllm-router. The servers run at once, the load goes to one after the other, by turns."""

import contextlib
import pathlib
import tempfile

from harness import procfs
from harness.results import Row, paired_row
from peers import frontends
from stator_process import StatorFrontend, StatorWorker

# case: (what it is, at most so much of the peer's CPU: the frontend alone, with its worker)
CASES = {
    "a": ("57 in / 1 out", 0.10, 0.15),
    "b": ("1k in / 64 out, streamed", 0.25, 0.3),
    "c": ("8k in / 16 out, streamed", 0.25, 0.3),
    "d": ("60k in / 4 out, streamed", 0.5, 0.5),
}
CONNECTIONS = 32


class Worker(StatorWorker):
    """The mock engine without latency."""

    def __init__(self, folder, model):
        super().__init__(
            folder,
            "mock",
            engine="mock",
            model_dir=str(model),
            served_model_name="fake",
            mock_preset="constant-10ms",
            speedup=10000,
            max_running=256,
            max_waiting=4096,
            max_sequence=131072,
            mock_blocks=65536,
            step_tokens=65536,
        )


def cpu_ms(result, name):
    return result["proc"][name]["cpu_ms_per_req"]


def check(result, side):
    bad = result["errors"] + result["conn_errors"] + result["timeouts"]
    if bad or not result["ok"]:
        raise RuntimeError(f"{side}: {bad} requests failed, {result['ok']} were answered")


def by_turns(args, peers, sides, case, connections, **load):
    """{side: [results]}; who goes first alternates."""
    out = {name: [] for name in sides}
    for turn in range(args.runs):
        order = list(sides) if turn % 2 == 0 else list(reversed(list(sides)))
        for name in order:
            port, pids = sides[name]
            result = peers.load(port, case, connections, pids, args.seconds, **load)
            check(result, f"{name}, case {case}")
            out[name].append(result)
    return out


def tokenising(args):
    peers, rows = frontends.FrontendPeers(), []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        dynamo = stack.enter_context(frontends.Dynamo(peers))
        worker = stack.enter_context(Worker(folder, peers.model))
        door = stack.enter_context(StatorFrontend(folder))
        frontends.wait_for_answer(door.port)
        sides = {
            "stator": (door.port, {"frontend": door.pid, "worker": worker.pid}),
            "dynamo": (dynamo.port, dynamo.pids),
        }
        for case, (what, share, share_of_both) in CASES.items():
            got = by_turns(args, peers, sides, case, CONNECTIONS)
            ours, theirs = got["stator"], got["dynamo"]
            fe, their_fe = ([cpu_ms(r, "frontend") for r in s] for s in (ours, theirs))
            rows.append(
                paired_row(f"{case}: {what}: frontend", "ms CPU per request", fe, their_fe,
                           frontends.DYNAMO, f"<= {share}")
            )
            both = [[cpu_ms(r, "frontend") + cpu_ms(r, "worker") for r in s] for s in (ours, theirs)]
            rows.append(
                paired_row(f"{case}: frontend and worker", "ms CPU per request", *both,
                           frontends.DYNAMO, f"<= {share_of_both}")
            )
            rows.append(
                paired_row(f"{case}: requests", "per s", [r["rps"] for r in ours],
                           [r["rps"] for r in theirs], frontends.DYNAMO)
            )
        rows += first_token(args, peers, sides)
        rows.append(memory(door.pid, dynamo.pids["frontend"]))
    return rows


def first_token(args, peers, sides):
    """One client, that acknowledges at once, and one that does not."""
    rows = []
    for case in ("b", "c", "d"):
        got = by_turns(args, peers, sides, case, 1, quickack=True)
        ours, theirs = ([r["ttft_ms"]["p50"] for r in got[s]] for s in ("stator", "dynamo"))
        rows.append(
            paired_row(f"{case}: TTFT p50, one connection, quick acks", "ms", ours, theirs,
                       frontends.DYNAMO, "<= 0.2")
        )
    got = by_turns(args, peers, sides, "b", 1)
    ours, theirs = ([r["ttft_ms"]["p50"] for r in got[s]] for s in ("stator", "dynamo"))
    rows.append(
        paired_row("b: TTFT p50, one connection, delayed acks", "ms", ours, theirs,
                   frontends.DYNAMO)
    )
    return rows


def memory(ours, theirs):
    value, peer = (procfs.rss_bytes(pid) / 1e6 for pid in (ours, theirs))
    row = Row("frontend: RSS after all cases", value, "MB", target="<= 150")
    row.note = f"{frontends.DYNAMO}: {peer:.0f} MB"
    return row


def passing_through(args):
    peers, rows = frontends.FrontendPeers(), []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(frontends.IdleServer(peers))
        router = stack.enter_context(frontends.VllmRouter(peers, server.port))
        door = stack.enter_context(
            StatorFrontend(folder, upstream=f"http://127.0.0.1:{server.port}")
        )
        frontends.wait_for_answer(door.port)
        sides = {
            "stator": (door.port, {"frontend": door.pid}),
            "router": (router.port, router.pids),
        }
        for case, (what, _, _) in CASES.items():
            got = by_turns(args, peers, sides, case, CONNECTIONS)
            ours, theirs = ([cpu_ms(r, "frontend") for r in got[s]] for s in ("stator", "router"))
            rows.append(
                paired_row(f"passed through, {case}: {what}", "ms CPU per request", ours, theirs,
                           frontends.VLLM_ROUTER, "<= 1.0")
            )
        ours, theirs = (procfs.rss_bytes(p) / 1e6 for p in (door.pid, router.pids["frontend"]))
        note = f"{frontends.VLLM_ROUTER}: {theirs:.0f} MB"
        rows.append(Row("passed through: RSS after all cases", ours, "MB", note=note))
    return rows
