"""A small engine in this process, for what a test wants to look into or break: vLLM's or SGLang's
HTTP as far as attaching needs it, with a prefix cache whose events are published as ZeroMQ does.

Tokens are a function of the prompt's ids, so that texts can be compared between engines.
"""

import http.server
import json
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "engines"))

from wire import Publisher  # noqa: E402

REPLAY_STEPS = 10_000


class SmallEngine:
    """Started and stopped as often as a test likes, on the same ports."""

    def __init__(self, kind="vllm", version="0.32.0", model="tiny", events=True, ranks=1, page=16):
        self.kind, self.version, self.model, self.page = kind, version, model, page
        self.events, self.ranks = events, ranks
        self.context, self.root, self.key = 2048, "/nowhere/tiny", None
        self.owner = kind
        self.tells_sources = True
        self.tokenize = None  # what it answers at /tokenize
        self.streams_ids = True  # has the route for token ids
        self.stuck = threading.Event()  # takes requests and gives nothing
        self.step_s = 0.0
        self.token_s = 0.0  # of prompt that is not cached
        self.port, self.event_ports = 0, [(0, 0)] * ranks
        self.server = None
        self.requests = []
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.caches = [set() for _ in range(self.ranks)]
        self.hits = [0] * self.ranks
        self.queries = [0] * self.ranks
        self.lock = threading.Lock()
        self.open = set()
        self.publishers = (
            [Publisher("", REPLAY_STEPS, True, p) for p in self.event_ports] if self.events else []
        )
        self.event_ports = [tuple(p.ports) for p in self.publishers] or self.event_ports
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                engine.open.add(self.connection)

            def finish(self):
                engine.open.discard(self.connection)
                super().finish()

            def log_message(self, *_):
                pass

            def do_GET(self):
                engine.get(self)

            def do_POST(self):
                engine.post(self)

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """As if its process were killed."""
        if self.server is None:
            return
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        for publisher in self.publishers:
            publisher.close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def events_are_told(self):
        return self.events and self.tells_sources

    @staticmethod
    def answer(http_, body, status=200):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        http_.send_response(status)
        http_.send_header("Content-Length", str(len(data)))
        http_.end_headers()
        http_.wfile.write(data)

    def get(self, http_):
        path = http_.path
        if self.key and path.startswith("/v1") and not self.has_key(http_):
            return self.answer(http_, {"error": "Unauthorized"}, 401)
        if path == "/health":
            return self.answer(http_, "")
        if path == "/v1/models":
            model = {
                "id": self.model,
                "owned_by": self.owner,
                "root": self.root,
                "parent": None,
                "max_model_len": self.context,
            }
            return self.answer(http_, {"object": "list", "data": [model]})
        if path == "/version" and self.kind == "vllm":
            return self.answer(http_, {"version": self.version})
        if path == "/metrics":
            return self.answer(http_, self.metrics())
        if path == "/kv_event_sources" and self.kind == "vllm" and self.events_are_told:
            return self.answer(
                http_,
                {
                    str(rank): {
                        "enable_kv_cache_events": True,
                        "publisher": "zmq",
                        "endpoint": f"tcp://*:{at[0]}",
                        "replay_endpoint": f"tcp://*:{at[1]}",
                        "topic": "",
                    }
                    for rank, at in enumerate(self.event_ports)
                },
            )
        if path == "/server_info" and self.kind == "sglang":
            info = {
                "version": self.version,
                "served_model_name": self.model,
                "page_size": self.page,
                "dp_size": self.ranks,
                "max_total_num_tokens": 16000,
                "context_length": self.context,
            }
            if self.events:
                info["kv_events_config"] = json.dumps(
                    {
                        "publisher": "zmq",
                        "endpoint": f"tcp://*:{self.event_ports[0][0]}",
                        "replay_endpoint": f"tcp://*:{self.event_ports[0][1]}",
                    }
                )
            return self.answer(http_, info)
        if path == "/inference/v1/generate" and self.kind == "vllm" and self.streams_ids:
            return self.answer(http_, {"detail": "Method Not Allowed"}, 405)
        self.answer(http_, {"detail": "Not Found"}, 404)

    def has_key(self, http_):
        return http_.headers.get("Authorization") == f"Bearer {self.key}"

    def metrics(self):
        if self.kind == "sglang":
            return "sglang:num_running_reqs 0\n"
        lines = []
        for rank in range(self.ranks):
            labels = f'engine="{rank}",model_name="{self.model}"'
            lines += [
                f"vllm:num_requests_running{{{labels}}} 0",
                f"vllm:prefix_cache_hits_total{{{labels}}} {self.hits[rank]}",
                f'vllm:cache_config_info{{block_size="{self.page}",engine="{rank}",'
                'num_gpu_blocks="1000"} 1',
            ]
        return "\n".join(lines) + "\n"

    def post(self, http_):
        body = json.loads(http_.rfile.read(int(http_.headers["Content-Length"])))
        rank = int(http_.headers.get("X-data-parallel-rank", body.get("data_parallel_rank", 0)))
        if self.key and not self.has_key(http_):
            return self.answer(http_, {"error": "Unauthorized"}, 401)
        if http_.path not in ("/v1/completions", "/inference/v1/generate", "/generate"):
            known = http_.path == "/tokenize" and self.tokenize is not None
            answer = {"tokens": self.tokenize} if known else {"detail": "Not Found"}
            return self.answer(http_, answer, 200 if known else 404)
        with self.lock:
            self.requests.append({"path": http_.path, "rank": rank, "body": body})
        ids = body.get("token_ids") or body.get("input_ids") or body.get("prompt")
        most = body.get("max_tokens") or body["sampling_params"].get("max_tokens")
        most = most or body["sampling_params"]["max_new_tokens"]
        http_.send_response(200)
        http_.send_header("Content-Type", "text/event-stream")
        http_.send_header("Transfer-Encoding", "chunked")
        http_.end_headers()
        while self.stuck.is_set():
            time.sleep(0.02)
            if self.server is None:
                return
        cached = self.look_up(ids, rank)
        time.sleep(self.token_s * (len(ids) - cached))
        out = []
        try:
            for i in range(most):
                out.append(token(ids, i))
                last = i + 1 == most
                self.event(http_, self.piece(http_.path, out, last, len(ids), cached))
                if self.step_s:
                    time.sleep(self.step_s)
            if self.kind == "vllm":
                usage = {"prompt_tokens": len(ids), "completion_tokens": most}
                if cached:
                    usage["prompt_tokens_details"] = {"cached_tokens": cached}
                self.event(http_, {"choices": [], "usage": usage})
            self.event(http_, "[DONE]")
            http_.wfile.write(b"0\r\n\r\n")
        except OSError:
            http_.close_connection = True

    def piece(self, path, out, last, prompt, cached):
        if path == "/generate":
            finish = {"type": "length", "length": len(out)} if last else None
            return {
                "text": "",
                "output_ids": out,
                "meta_info": {
                    "prompt_tokens": prompt,
                    "completion_tokens": len(out),
                    "cached_tokens": cached,
                    "finish_reason": finish,
                },
            }
        finish = "length" if last else None
        return {"choices": [{"index": 0, "token_ids": out[-1:], "finish_reason": finish}]}

    @staticmethod
    def event(http_, what):
        data = f"data: {what if isinstance(what, str) else json.dumps(what)}\n\n".encode()
        http_.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def look_up(self, ids, rank):
        """Tokens of the prompt that were there; the rest is kept, and told."""
        with self.lock:
            cache, parent, cached, new = self.caches[rank], None, 0, []
            first_parent = None
            for at in range(0, len(ids) - self.page + 1, self.page):
                block = ids[at : at + self.page]
                digest = hash((parent, tuple(block))) & 0xFFFFFFFFFFFFFFFF
                if digest in cache:
                    cached = at + self.page
                    parent = digest
                    continue
                if not new:
                    first_parent = parent
                cache.add(digest)
                new.append((digest, block))
                parent = digest
            cached = min(cached, max(0, len(ids) - 1) // self.page * self.page)
            self.hits[rank] += cached
            self.queries[rank] += len(ids)
            if new and self.publishers:
                signed = self.kind == "sglang"
                event = {
                    "type": "BlockStored",
                    "block_hashes": [d for d, _ in new],
                    "parent_block_hash": first_parent,
                    "token_ids": [t for _, b in new for t in b],
                    "block_size": self.page,
                    "lora_id": None,
                    **({} if signed else {"medium": "GPU"}),
                }
                self.publishers[rank].publish([time.time(), [event], rank])
            return cached


def token(ids, i):
    """The token that an engine gives next; an ordinary one of small vocabularies."""
    return 300 + (sum(ids) * 31 + i * 7) % 199
