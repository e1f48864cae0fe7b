#!/usr/bin/env python3
"""The text layer against the crates below it: encoding, detokenising, chat templates. Whole frontends
against Dynamo's and vllm-router.

    STATOR_BIN=… STATOR_BUILD=… STATOR_TOKENIZERS=… STATOR_PEERS=… bench/text/run.py [--quick] [--only PART …]

See bench/README.md.
"""

import argparse
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "test" / "support")]

import detokenize  # noqa: E402
import frontend  # noqa: E402
import parts  # noqa: E402
import template  # noqa: E402
import tokenizer  # noqa: E402
from harness import results  # noqa: E402

PARTS = {
    "tokenizer": tokenizer.run,
    "detokenize": detokenize.run,
    "template": template.run,
    "frontend": frontend.tokenising,
    "passthrough": frontend.passing_through,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once: does it run at all")
    parser.add_argument("--runs", type=int, default=5, help="of each measurement")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load at a whole frontend")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="writes no result by itself")
    parser.add_argument("--output", type=pathlib.Path, help="default: bench/results/text.json")
    args = parser.parse_args()
    if args.quick:
        args.runs, args.seconds = 1, 1.0
    if args.output is None and not args.quick and not args.only:
        args.output = results.RESULTS / "text.json"
    for name in ("STATOR_BUILD", "STATOR_TOKENIZERS"):
        if name not in os.environ:
            parser.error(f"{name} is not set: ./dev bench text sets it")
    args.build = pathlib.Path(os.environ["STATOR_BUILD"])
    args.tokenizers = pathlib.Path(os.environ["STATOR_TOKENIZERS"])
    args.environment = dict(os.environ)
    return args


def main():
    args = arguments()
    if set(args.only or PARTS) & {"tokenizer", "detokenize", "template"}:
        parts.build_peer(args.build)
    loads, rows = [], []
    for name in args.only or PARTS:
        loads.append(round(os.getloadavg()[0], 1))
        print(f"{name} (load average {loads[-1]}):", flush=True)
        part = PARTS[name](args)
        print(results.table(part) + "\n", flush=True)
        rows += part
    if args.output is not None:
        about = {
            "runs": args.runs,
            "texts": "Python's docstrings and library, generated Chinese; made by bench/text/parts.py",
            "cold": "each prompt for the first time in its process",
            "load_average_before_each_part": loads,
        }
        results.write(args.output, " ".join(["./dev bench text", *sys.argv[1:]]), rows, about)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
