#!/usr/bin/env python3
"""Holds an endpoint picker to its protocol: `epp_conformance.py --epp HOST:PORT --model NAME`.

README.md says what is checked and what the options mean. Exits 1 where a MUST fails.
"""

import argparse
import datetime
import json
import sys
import time
import traceback

import cases
import grpc
import wire
from proxy import Failed, Proxy


def read_options(argv):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--epp", required=True, metavar="HOST:PORT", help="the picker's gRPC address")
    p.add_argument("--health", metavar="HOST:PORT", help="its health service, where that is apart")
    p.add_argument("--tls", action="store_true", help="speak TLS; certificates are not checked")
    p.add_argument("--endpoints", default="", metavar="A,B", help="those that it may pick, ip:port")
    p.add_argument("--model", required=True, help="a model that they serve")
    p.add_argument("--path", default="/v1/chat/completions", help="where requests go")
    p.add_argument("--large-body", type=int, default=4 << 20, metavar="BYTES")
    p.add_argument("--max-body", type=int, default=0, metavar="BYTES", help="the picker's limit")
    p.add_argument("--drain-pid", type=int, default=0, metavar="PID",
                   help="process to end with SIGTERM as the last case")
    p.add_argument("--only", default="", help="only cases whose name has this in it")
    p.add_argument("--implementation", default="", help="name and version, for the report")
    p.add_argument("--json", metavar="FILE")
    p.add_argument("--markdown", metavar="FILE")
    o = p.parse_args(argv)
    o.endpoints = [e for e in o.endpoints.split(",") if e]
    return o


def run_case(target, name, must, about, function):
    begin = time.monotonic()
    result = {"case": name, "level": "MUST" if must else "SHOULD", "about": about}
    try:
        note = function(target)
        result["outcome"] = "passed"
        if note:
            result["note"] = note
    except cases.Skipped as e:
        result |= {"outcome": "skipped", "note": f"needs {e}"}
    except (Failed, wire.Silent, wire.Ended, grpc.RpcError) as e:
        result |= {"outcome": "failed", "note": str(e)[:500]}
    except Exception:  # noqa: BLE001 - what a picker sends must not end the run
        result |= {"outcome": "failed", "note": traceback.format_exc(limit=3)[-500:]}
    result["seconds"] = round(time.monotonic() - begin, 3)
    return result


def summary(results):
    out = {}
    for level in ("MUST", "SHOULD"):
        of_level = [r["outcome"] for r in results if r["level"] == level]
        out[level] = {o: of_level.count(o) for o in ("passed", "failed", "skipped")}
    return out


def as_markdown(report):
    lines = ["# Endpoint picker conformance", ""]
    who = report["implementation"] or report["epp"]
    lines.append(f"{who}, {report['date']}; protocol {report['protocol']}.")
    lines += ["", "| level | passed | failed | skipped |", "|---|---|---|---|"]
    for level, n in report["summary"].items():
        lines.append(f"| {level} | {n['passed']} | {n['failed']} | {n['skipped']} |")
    lines += ["", "| case | level | outcome | what it is about |", "|---|---|---|---|"]
    for r in report["cases"]:
        about = r["about"] + (f" *{r['note']}*" if r.get("note") else "")
        about = about.replace("|", "\\|").replace("\n", " ")
        outcome = "**failed**" if r["outcome"] == "failed" else r["outcome"]
        lines.append(f"| {r['case']} | {r['level']} | {outcome} | {about} |")
    return "\n".join(lines) + "\n"


def main(argv=None):
    options = read_options(argv)
    channel = wire.connect(options.epp, options.tls)
    health = wire.connect(options.health, options.tls) if options.health else channel
    target = cases.Target(options, channel, Proxy(channel, options.path))
    target.channel_of_health = lambda: health
    results = []
    for name, must, about, function in cases.CASES:
        if options.only not in name:
            continue
        result = run_case(target, name, must, about, function)
        results.append(result)
        print(f"{result['outcome']:8}{result['level']:7}{name}  {result.get('note', '')}", flush=True)
    report = {
        "implementation": options.implementation,
        "epp": options.epp,
        "protocol": "GAIE 004 v1.0.0",
        "date": datetime.date.today().isoformat(),
        "summary": summary(results),
        "cases": results,
    }
    if options.json:
        with open(options.json, "w") as f:
            json.dump(report, f, indent=1, ensure_ascii=False)
    if options.markdown:
        with open(options.markdown, "w") as f:
            f.write(as_markdown(report))
    print(json.dumps(report["summary"]))
    return 1 if report["summary"]["MUST"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
