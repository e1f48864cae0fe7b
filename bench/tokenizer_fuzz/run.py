"""Random texts through our tokenizers and the Python package `tokenizers` until the time is over.

    STATOR_TOKENIZERS=… STATOR_BUILD=… bench/tokenizer_fuzz/run.py [--seconds N] [--seed N] [NAME …]

Writes no result file: it ends with 1 where anything differed and prints the shortest text it found.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "test" / "support"))

import tokenize_process  # noqa: E402
import tokenizer_texts  # noqa: E402

ROUND_SECONDS = 20
FINDINGS_EACH = 5


def differs(ours, theirs, text):
    """What differs on a text, or None."""
    wanted = theirs.encode(text, add_special_tokens=False).ids
    try:
        got = ours.encode(text)
    except tokenize_process.Refused as e:
        return f"refused: {e}"
    if got != wanted:
        return f"ids: {got[:12]} instead of {wanted[:12]}"
    if ours.decode(wanted) != theirs.decode(wanted):
        return f"decoded: {ours.decode(wanted)[:80]!r} instead of {theirs.decode(wanted)[:80]!r}"
    return None


def shortest(ours, theirs, text):
    """Cuts pieces off while the texts still differ."""
    size = max(1, len(text) // 2)
    while size >= 1:
        at = 0
        while at < len(text):
            cut = text[:at] + text[at + size :]
            if cut and differs(ours, theirs, cut):
                text = cut
            else:
                at += size
        size //= 2
    return text


class Lane:
    def __init__(self, name, seed):
        import tokenizers

        file = tokenize_process.real_folder() / name / "tokenizer.json"
        self.name = name
        self.theirs = tokenizers.Tokenizer.from_file(str(file))
        self.ours = tokenize_process.TokenizeProcess(file)
        added = self.theirs.get_added_tokens_decoder().values()
        self.texts = tokenizer_texts.Random(f"{seed} {name}", [t.content for t in added])
        self.count = self.characters = 0
        self.findings = []

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.findings) < FINDINGS_EACH:
            text = next(self.texts)
            self.count += 1
            self.characters += len(text)
            if differs(self.ours, self.theirs, text):
                text = shortest(self.ours, self.theirs, text)
                what = differs(self.ours, self.theirs, text)
                self.findings.append(text)
                print(f"{self.name}: {text!r} {what}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default="1")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    folder = tokenize_process.real_folder()
    if folder is None:
        parser.error("STATOR_TOKENIZERS is not set: ./dev bench sets it where npm is installed")
    sys.path.append(str(folder / "python"))
    lanes = [Lane(n, args.seed) for n in args.names or tokenize_process.real_names()]
    end = time.monotonic() + args.seconds
    while (left := end - time.monotonic()) > 0:
        for lane in lanes:
            lane.run(min(ROUND_SECONDS, left / len(lanes) + 0.1))
    for lane in lanes:
        print(f"{lane.name:16} {lane.count:9} texts {lane.characters:11} characters "
              f"{len(lane.findings)} differ")
    return 1 if any(lane.findings for lane in lanes) else 0


if __name__ == "__main__":
    sys.exit(main())
