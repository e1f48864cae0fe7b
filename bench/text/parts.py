"""What the parts of bench/text share: the two programs, the texts, runs by turns."""

import json
import pathlib
import random
import subprocess
import sys
import sysconfig

# One thread on both sides: fastokens would spread long prompts over all cores.
PEER_ENVIRONMENT = {"FASTOKENS_BPE_THREADS": "1"}
SECONDS = 300


def build_peer(build):
    subprocess.run(["cmake", "--build", str(build), "--target", "text_peer"], check=True,
                   stdout=subprocess.DEVNULL, timeout=1800)


def figures(args, program, *call):
    """What one run of a program printed."""
    command = [args.build / "bench" / program, *(str(c) for c in call)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS,
                          env={**args.environment, **PEER_ENVIRONMENT})
    if done.returncode != 0:
        raise RuntimeError(f"{program} {call[0]} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def by_turns(args, *call):
    """Both sides, `runs` times; who goes first alternates. Both must have made the same."""
    mine, theirs = [], []
    for turn in range(args.runs):
        sides = [("bench_text", mine), ("text_peer", theirs)]
        for program, runs in sides if turn % 2 == 0 else reversed(sides):
            runs.append(figures(args, program, *call))
    if any(a.get("digest") != b.get("digest") for a, b in zip(mine, theirs)):
        raise RuntimeError(f"the two sides differ: {call}")
    return mine, theirs


def texts(folder, size):
    """English (Python's own docstrings), code (its library) and Chinese (made of frequent words)."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    sources = [p.read_text(errors="replace") for p in sorted(library.rglob("*.py"))[:1500]
               if "test" not in p.parts and "site-packages" not in p.parts]
    made = {"English": english(sources), "code": "".join(sources), "Chinese": chinese(size)}
    for name, text in made.items():
        path = folder / f"{name}.txt"
        path.write_bytes(text.encode()[:size].decode(errors="ignore").encode())
        yield name, path


def english(sources):
    """Docstrings and comments: prose, in the order in which it was written."""
    prose = []
    for text in sources:
        prose += text.split('"""')[1::2]
        prose += [line.strip("# ") for line in text.splitlines() if line.lstrip().startswith("# ")]
    return " ".join(" ".join(p.split()) for p in prose if len(p) > 40)


def chinese(size):
    """Words of one to four characters, frequent ones often, with punctuation."""
    rng = random.Random(3)
    common = "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
    words = ["".join(rng.choices(common, k=rng.choice([1, 2, 2, 2, 3, 4]))) for _ in range(4000)]
    words += ["".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(2)) for _ in range(4000)]
    weights = [1 / (i + 10) for i in range(len(words))]
    out, length = [], 0
    while length < size:
        out += rng.choices(words, weights, k=rng.randrange(3, 12))
        out.append(rng.choice("，，，。。！？、；\n"))
        length += 30
    return "".join(out)


def median(values):
    return sorted(values)[len(values) // 2]


def progress(text):
    print(f"  {text}", file=sys.stderr, flush=True)
