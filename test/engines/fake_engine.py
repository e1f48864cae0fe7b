#!/usr/bin/env python3
"""An engine of a given kind and version as its clients see it: HTTP, KV events, transfers between
prefill and decode, and the ways in which engines go wrong. No model: its tokens are a function of
the prompt's ids.

Prints one line of JSON with its addresses, and ends on SIGTERM or when stdin closes. What a version
does differently is in quirks.json; --set NAME=VALUE and POST /fake/set change single traits.
GET /fake/state tells what it was asked.
"""

import argparse
import base64
import hashlib
import http.server
import json
import os
import pathlib
import select
import signal
import socket
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import blocks  # noqa: E402
import vision  # noqa: E402
import wire  # noqa: E402

TABLE = json.loads(pathlib.Path(__file__).with_name("quirks.json").read_text())
COMMON = {
    "events": "map",
    "hashes": "int",
    "sources": True,
    "generate": "none",
    "salts": True,
    "replay_topic": True,
    "replay_steps": 10_000,
    "fingerprint": True,
    "page": 16,
    "blocks": 1000,
    "context": 8192,
    "vocabulary": 200_000,
    "incremental": False,
    "format": "default",
    "cleared_first": False,
    "connector": "nixl",
    "lease_s": 30.0,
    "match_s": 30.0,
    "step_s": 0.0,
    "token_s": 0.0,
    "fail": "",
    "fail_after": 2,
    "unknown_parents": False,
    "lost_batches": False,
    "vision": False,  # its model reads pictures
    "video": False,
    "renders": True,  # vLLM: /v1/chat/completions/render
    "ec_dir": "",  # a folder that encoders and those who compute prompts share
    "ec_params": True,  # encoders say where they have left what they made
    "encode_s": 0.0,
    "fail_encode": "",  # "500", "stall", "die"
    "image_token": vision.IMAGE,  # SGLang
    "language_only": False,  # SGLang: encoders make its embeddings
    "adapters": [],
    "priorities": False,
}
TRT_FIELDS = {
    *("model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop"),
    *("stream", "stream_options", "logprobs", "n", "best_of", "echo", "frequency_penalty"),
    *("presence_penalty", "repetition_penalty", "logit_bias", "ignore_eos", "min_tokens", "user"),
    *("stop_token_ids", "include_stop_str_in_output", "skip_special_tokens", "lora_request"),
    *("response_format", "disaggregated_params", "detokenize", "add_special_tokens", "suffix"),
    *("prompt_ignore_length", "length_penalty", "early_stopping", "use_beam_search"),
    *("spaces_between_special_tokens", "truncate_prompt_tokens", "guided_decoding"),
}
NIXL_KEYS = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port")
MOST_REQUESTS_KEPT = 10_000


def tokens_after(ids, count, adapter=""):
    """What the engine gives: each token is a function of all before it, so that a request that is
    resumed elsewhere goes on as it would have. Ordinary ones of small vocabularies."""
    total = sum(t * (at % 61 + 1) for at, t in enumerate(ids)) + sum(adapter.encode())
    out = []
    for length in range(len(ids), len(ids) + count):
        out.append(300 + (total * 31 + length * 7) % 199)
        total += out[-1] * (length % 61 + 1)
    return out


def compact(what):
    return json.dumps(what, separators=(",", ":"))


def traits_of(kind, version, quirks, settings):
    rows = TABLE[kind]
    number = tuple(int(n) for n in version.split(".")[:2])
    known = sorted((tuple(map(int, v.split("."))), v) for v in rows)
    best = [name for at, name in known if at <= number] or [known[0][1]]
    out = {**COMMON, **rows[best[-1]]}
    for quirk in quirks:
        out.update(TABLE["quirks"][quirk])
    out.update(settings)
    return out


class Refused(Exception):
    def __init__(self, status, message, kind="BadRequestError", param=None):
        super().__init__(message)
        self.status, self.kind, self.param = status, kind, param


class Gone(Exception):
    """The client left."""


class Rank:
    def __init__(self, engine, ports):
        t = engine.traits
        digest = self._sglang if engine.kind == "sglang" else blocks.vllm_digest
        self.cache = blocks.PrefixCache(t["page"], t["blocks"], digest)
        self.queries = self.hits = self.running = 0
        self.publisher = self.pulled = None
        self.cleared = t["cleared_first"]
        self.reset = False
        if engine.events and t["events"] == "pull":
            self.pulled, self.event_id = [], 0
        elif engine.events:
            self.publisher = wire.Publisher(
                engine.topic, t["replay_steps"], t["replay_topic"], ports
            )

    @staticmethod
    def _sglang(parent, tokens, salt):
        root = hashlib.sha256(salt.encode()).digest() if salt else parent
        return blocks.sglang_digest(root, tokens)


class Engine:
    def __init__(self, args):
        self.kind, self.version, self.role = args.kind, args.version, args.role
        self.events = args.events
        settings = {}
        for text in args.set:
            name, _, value = text.partition("=")
            try:
                settings[name] = json.loads(value)
            except ValueError:
                settings[name] = value
        self.traits = traits_of(args.kind, args.version, args.quirk, settings)
        self.model = args.served_model_name
        self.root = args.model_dir
        self.topic = "kv-events" if args.kind == "sglang" else f"kv@w0@{self.model}"
        self.lock = threading.Lock()
        self.requests, self.made, self.aborted = [], 0, 0
        self.next_rank = 0
        self.id = hashlib.sha256(os.urandom(16)).hexdigest()[:32]
        self.handed = {}  # id of a transfer -> (pinned blocks, rank, when)
        self.rooms = {}
        self.encodings = {"made": 0, "here": 0, "elsewhere": 0, "open": 0}
        self.row_names = {}  # row of a picture -> (uuid, its number, placeholder)
        self.encoder_urls = []
        events = args.event_ports
        self.ranks = [Rank(self, events[2 * r : 2 * r + 2] or (0, 0)) for r in range(args.dp)]
        for number, rank in enumerate(self.ranks):
            if rank.publisher and rank.cleared:
                rank.publisher.publish([time.time(), [{"type": "AllBlocksCleared"}], number])

    # What it tells of itself.

    def sources(self, rank):
        pub, replay = self.ranks[rank].publisher.ports
        return {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://*:{pub}",
            "replay_endpoint": f"tcp://*:{replay}",
            "buffer_steps": self.traits["replay_steps"],
            "hwm": 100_000,
            "max_queue_size": 100_000,
            "topic": self.topic,
        }

    def models(self):
        owner = {"trtllm": "tensorrt_llm"}.get(self.kind, self.kind)
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": owner,
            "root": self.root,
            "parent": None,
            "max_model_len": self.traits["context"],
        }
        if self.kind == "trtllm":
            card = {k: card[k] for k in ("id", "object", "created", "owned_by")}
        if self.kind == "vllm":
            names = ("sampling", "logprobs", "view")
            card["permission"] = [
                {
                    "id": "modelperm-" + os.urandom(8).hex(),
                    "object": "model_permission",
                    "created": card["created"],
                    "allow_create_engine": False,
                    **{f"allow_{n}": True for n in names},
                    "allow_search_indices": False,
                    "allow_fine_tuning": False,
                    "organization": "*",
                    "group": None,
                    "is_blocking": False,
                }
            ]
        adapters = [
            {**card, "id": name, "root": f"/adapters/{name}", "parent": self.model}
            for name in self.traits["adapters"]
        ]
        return {"object": "list", "data": [card, *adapters]}

    def server_info(self):
        t = self.traits
        info = {
            "version": self.version,
            "model_path": self.root,
            "served_model_name": self.model,
            "page_size": t["page"],
            "dp_size": len(self.ranks),
            "max_total_num_tokens": t["blocks"] * t["page"],
            "context_length": t["context"],
            "disaggregation_mode": self.role if self.role in ("prefill", "decode") else "null",
            "disaggregation_bootstrap_port": self.port,
            "enable_priority_scheduling": t["priorities"],
        }
        if self.events and t["sources"]:
            pub, replay = self.ranks[0].publisher.ports
            info["kv_events"] = {
                "publisher": "zmq",
                "endpoint_host": "*",
                "endpoint_port_base": pub,
                "replay_endpoint_port_base": replay,
                "topic": self.topic,
                "block_size": t["page"],
                "dp_size": 1,
                "format": t["format"],
            }
        return info

    def metrics(self):
        out = []
        for number, rank in enumerate(self.ranks):
            used = len(rank.cache.blocks) and (
                sum(1 for b in rank.cache.blocks.values() if b.pins) / rank.cache.capacity
            )
            labels = f'engine="{number}",model_name="{self.model}"'
            if self.kind == "sglang":
                labels = f'dp_rank="{number}",model_name="{self.model}"'
                rows = {"num_running_reqs": rank.running, "num_queue_reqs": 0, "token_usage": used}
                out += [f"sglang:{k}{{{labels}}} {float(v)}" for k, v in rows.items()]
                continue
            if self.kind == "trtllm":
                out += [f"trtllm_num_requests_running {float(rank.running)}"]
                out += [f"trtllm_kv_cache_utilization {float(used)}"]
                continue
            rows = {
                "num_requests_running": rank.running,
                "num_requests_waiting": 0,
                "kv_cache_usage_perc": used,
                "prefix_cache_queries_total": rank.queries,
                "prefix_cache_hits_total": rank.hits,
            }
            out += [f"vllm:{k}{{{labels}}} {float(v)}" for k, v in rows.items()]
            t = self.traits
            out.append(
                f'vllm:cache_config_info{{block_size="{t["page"]}",enable_prefix_caching="True",'
                f'engine="{number}",num_gpu_blocks="{t["blocks"]}"}} 1.0'
            )
        return "\n".join(out) + "\n"

    def iteration_stats(self):
        rank = self.ranks[0]
        free = len(rank.cache.free)
        return [
            {
                "iter": self.made,
                "numActiveRequests": rank.running,
                "numQueuedRequests": 0,
                "kvCacheStats": {
                    "maxNumBlocks": rank.cache.capacity,
                    "freeNumBlocks": free,
                    "usedNumBlocks": rank.cache.capacity - free,
                    "tokensPerBlock": rank.cache.page,
                    "reusedBlocks": rank.hits // rank.cache.page,
                },
            }
        ]

    # The cache and its events.

    def admit(self, rank_number, ids, salt, adapter="", all_again=False):
        """A step: (chain, tokens of the prompt that were there). Events leave with it."""
        with self.lock:
            rank = self.ranks[rank_number]
            chain, hits, removed = rank.cache.take(ids, self._root(salt, adapter))
            told = 0 if all_again else hits
            self._tell(rank_number, chain, told, removed, salt, adapter)
            # The last token is computed in any case.
            page = rank.cache.page
            cached = min(hits, (len(ids) - 1) // page) * page
            rank.queries += len(ids)
            rank.hits += cached
            rank.running += 1
            return chain, cached

    @staticmethod
    def _root(salt, adapter):
        return f"{adapter}:{salt or ''}" if adapter else salt

    def grow(self, rank_number, ids, salt, adapter=""):
        """Blocks that were filled while tokens were made."""
        with self.lock:
            rank = self.ranks[rank_number]
            chain, hits, removed = rank.cache.take(ids, self._root(salt, adapter))
            self._tell(rank_number, chain, hits, removed, salt, adapter)
            rank.cache.release(chain)

    def _tell(self, rank_number, chain, hits, removed, salt, adapter):
        rank = self.ranks[rank_number]
        events = [{"type": "AllBlocksCleared"}] if rank.reset else []
        rank.reset = False
        events += self._removed(removed) + self._stored(chain, hits, salt, adapter)
        if rank.pulled is not None:
            self._keep(rank, removed, chain, hits)
        elif events and rank.publisher:
            self._publish(rank, rank_number, events)

    def _shown(self, block):
        digest = block if isinstance(block, bytes) or block is None else block.digest
        return digest and blocks.shown(digest, self.traits["hashes"])

    def _removed(self, removed):
        one = {"type": "BlockRemoved", "block_hashes": [], "medium": "GPU"}
        if self.kind == "sglang":
            return [{**one, "block_hashes": [self._shown(b) for b in removed]}] if removed else []
        return [{**one, "block_hashes": [self._shown(b)], "group_idx": 0} for b in removed]

    def _stored(self, chain, hits, salt, adapter):
        new = chain[hits:]
        if not new:
            return []
        event = {
            "type": "BlockStored",
            "block_hashes": [self._shown(b) for b in new],
            "parent_block_hash": self._shown(new[0].parent),
            "token_ids": [self.shown_token(t) for b in new for t in b.tokens],
            "block_size": self.traits["page"],
            "lora_id": None,
            "medium": "GPU",
        }
        if self.kind == "sglang":
            return [{**event, "cache_salt": salt}] if salt else [event]
        event["lora_name"] = adapter or None
        if adapter:
            event["lora_id"] = self.traits["adapters"].index(adapter) + 1
        keys = [[adapter] if adapter else None for _ in new]
        if salt and not hits and self.traits["salts"]:
            keys[0] = [*(keys[0] or []), salt]
        for at, block in enumerate(new):
            names = self.names_in(block.tokens)
            keys[at] = (names + (keys[at] or [])) or None
        return [
            {**event, "extra_keys": keys, "group_idx": 0, "kv_cache_spec_kind": "full_attention"}
        ]

    def shown_token(self, token):
        """vLLM shows placeholders; SGLang what it has put for them."""
        if token < vision.EFFECTIVE or self.kind == "sglang":
            return token
        return self.row_names[token][2]

    def names_in(self, tokens):
        out = []
        for at, token in enumerate(tokens):
            uuid, number, _ = self.row_names.get(token, (None, 0, 0))
            if uuid and [uuid, at - number] not in out:
                out.append([uuid, at - number])
        return out

    def _publish(self, rank, number, events):
        t = self.traits
        if t["unknown_parents"]:
            for event in events:
                if event["type"] == "BlockStored" and event["parent_block_hash"] is None:
                    event["parent_block_hash"] = self._shown(os.urandom(32))
        if t["lost_batches"] and rank.publisher.number % 3 == 1:
            return rank.publisher.lose()
        if t["events"] == "array":
            events = [self._positional(e) for e in events]
        rank.publisher.publish([time.time(), events, number])

    @staticmethod
    def _positional(e):
        if e["type"] == "BlockRemoved":
            return [e["type"], e["block_hashes"], e["medium"]]
        if e["type"] == "AllBlocksCleared":
            return [e["type"]]
        names = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id")
        return [e["type"], *(e[n] for n in names), e["medium"], e["lora_name"]]

    def _keep(self, rank, removed, chain, hits):
        said = []
        if rank.event_id == 0:
            said.append({"type": "created", "num_blocks_per_cache_level": [rank.cache.capacity, 0]})
        if removed:
            said.append({"type": "removed", "block_hashes": [self._shown(b) for b in removed]})
        if chain[hits:]:
            kept = [
                {
                    "type": "stored_block",
                    "block_hash": self._shown(b),
                    "tokens": [
                        {"type": "unique_token", "token_id": t, "token_extra_id": 0}
                        for t in b.tokens
                    ],
                    "cache_level": 0,
                    "priority": 35,
                }
                for b in chain[hits:]
            ]
            parent = self._shown(chain[hits].parent)
            said.append({"type": "stored", "parent_hash": parent, "blocks": kept})
        for data in said:
            window = self.traits["context"]
            rank.pulled.append({"event_id": rank.event_id, "data": data, "window_size": window})
            rank.event_id += 1
        del rank.pulled[: -self.traits["replay_steps"]]

    def finish(self, rank_number, chain):
        with self.lock:
            self.ranks[rank_number].running -= 1
            self.ranks[rank_number].cache.release(chain)

    def reset_cache(self):
        with self.lock:
            for number, rank in enumerate(self.ranks):
                if not rank.cache.clear():
                    continue
                if self.kind == "sglang" and rank.publisher:
                    rank.publisher.publish([time.time(), [{"type": "AllBlocksCleared"}], number])
                elif rank.publisher:
                    rank.reset = True  # told with the next step

    # Transfers.

    def hand_over(self, rank, chain, name):
        """Pins the blocks until they are pulled or the lease ends."""
        with self.lock:
            for block in chain:
                block.pins += 1
            self.handed[name] = chain

        def expire():
            self.pull(name)

        timer = threading.Timer(self.traits["lease_s"], expire)
        timer.daemon = True
        timer.start()

    def pull(self, name):
        with self.lock:
            chain = self.handed.pop(name, None)
            if chain is None:
                return False
            blocks.PrefixCache.release(chain)
            return True

    @staticmethod
    def ask(host, port, path):
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def die(self):
        os._exit(1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine = None

    def log_message(self, *_):
        pass

    def answer(self, what, status=200, kind="application/json"):
        data = (what if isinstance(what, str) else compact(what)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, e):
        if self.engine.kind == "trtllm":
            body = {"object": "error", "message": str(e), "type": e.kind, "code": e.status}
            return self.answer({**body, "param": e.param}, e.status)
        body = {"message": str(e), "type": e.kind, "param": e.param, "code": e.status}
        self.answer({"error": body}, e.status)

    def gone(self):
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def wait(self, until, seconds):
        """Polls; Gone if the client leaves meanwhile."""
        end = time.monotonic() + seconds
        while not (value := until()):
            if self.gone():
                raise Gone
            if time.monotonic() > end:
                return None
            time.sleep(0.01)
        return value

    def do_GET(self):
        engine, path = self.engine, self.path.split("?")[0]
        kind, traits = engine.kind, engine.traits
        query = self.path.partition("?")[2].partition("=")[2]
        if path == "/fake/state":
            with engine.lock:
                state = {
                    "requests": engine.requests,
                    "hits": [r.hits for r in engine.ranks],
                    "queries": [r.queries for r in engine.ranks],
                    "aborted": engine.aborted,
                    "handed": len(engine.handed),
                    "encodings": engine.encodings,
                    "encoder_urls": engine.encoder_urls,
                    "running": sum(r.running for r in engine.ranks),
                    "pinned": sum(
                        b.pins > 0 for r in engine.ranks for b in r.cache.blocks.values()
                    ),
                }
            return self.answer(state)
        if path == "/fake/pull":
            return self.answer(engine.pull(query))
        if path == "/fake/room":
            with engine.lock:
                known = engine.rooms.get(query) == "waits"
                if known:
                    engine.rooms[query] = "taken"
            return self.answer(known)
        if path == "/health" or (path == "/ping" and kind == "vllm"):
            return self.answer("")
        if path == "/v1/models":
            return self.answer(engine.models())
        if path == "/query" and traits["connector"] == "mooncake":
            ranks = range(len(engine.ranks))
            return self.answer({str(r): {"engine_id": f"{engine.id}_dp{r}"} for r in ranks})
        if path == "/version" and kind != "sglang":
            return self.answer({"version": engine.version})
        if path == "/metrics" and kind == "trtllm":
            return self.answer(engine.iteration_stats())
        if path == "/kv_cache_events" and kind == "trtllm":
            return self.answer({"detail": "Method Not Allowed"}, 405)
        if path == ("/prometheus/metrics" if kind == "trtllm" else "/metrics"):
            return self.answer(engine.metrics(), kind="text/plain; version=0.0.4")
        if kind == "vllm":
            if path == "/kv_event_sources" and traits["sources"] and engine.events:
                ranks = range(len(engine.ranks))
                return self.answer({str(r): engine.sources(r) for r in reversed(ranks)})
            if path == "/load":
                return self.answer({"server_load": sum(r.running for r in engine.ranks)})
            if path == "/inference/v1/generate" and traits["generate"] != "none":
                return self.answer({"detail": "Method Not Allowed"}, 405)
        if kind == "sglang":
            if path in ("/server_info", "/get_server_info"):
                return self.answer(engine.server_info())
            if path in ("/model_info", "/get_model_info"):
                return self.answer({"model_path": engine.root, "is_generation": True})
        self.answer({"detail": "Not Found"}, 404)

    def do_POST(self):
        engine = self.engine
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        try:
            self.route(path, text)
        except Refused as e:
            self.refuse(e)
        except (Gone, OSError):
            with engine.lock:
                engine.aborted += 1
            self.close_connection = True

    def do_DELETE(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/unregister_encoder_url" or not self.engine.traits["language_only"]:
            return self.answer({"detail": "Not Found"}, 404)
        with self.engine.lock:
            urls = self.engine.encoder_urls
            urls[:] = [u for u in urls if u != json.loads(text)["url"]]
        return self.answer("OK", kind="text/plain")

    def route(self, path, text):
        engine, kind = self.engine, self.engine.kind
        if path == "/fake/set":
            engine.traits.update(json.loads(text))
            return self.answer(engine.traits)
        if path == "/kv_cache_events" and kind == "trtllm":
            with engine.lock:
                out = [e for r in engine.ranks for e in r.pulled or []]
                for rank in engine.ranks:
                    rank.pulled = rank.pulled and []
            return self.answer(out)
        if path == "/reset_prefix_cache" or (path == "/flush_cache" and kind == "sglang"):
            engine.reset_cache()
            return self.answer({"success": True})
        if path == "/register_encoder_url" and engine.traits["language_only"]:
            with engine.lock:
                if json.loads(text)["url"] not in engine.encoder_urls:
                    engine.encoder_urls.append(json.loads(text)["url"])
            return self.answer("OK", kind="text/plain")
        if path == "/abort_request" and kind == "sglang":
            return self.answer("")
        known = {"/v1/completions", "/v1/chat/completions"}
        if kind == "vllm" and engine.traits["vision"] and engine.traits["renders"]:
            known.add("/v1/chat/completions/render")
        if kind == "vllm" and engine.traits["generate"] != "none":
            known.add("/inference/v1/generate")
        if kind == "sglang":
            known.add("/generate")
        if path not in known:
            return self.answer({"detail": "Not Found"}, 404)
        try:
            body = json.loads(text)
        except ValueError as e:
            at = f"body.{getattr(e, 'pos', 0)}"
            said = f"1 validation error:\n  {{'type': 'json_invalid', 'loc': '{at}'}}"
            param = at if engine.traits["fingerprint"] else None
            raise Refused(400, said, "Bad Request", param) from e
        self.generate(path, body)

    def generate(self, path, body):
        engine, t = self.engine, self.engine.traits
        if engine.kind == "trtllm" and (odd := set(body) - TRT_FIELDS):
            raise Refused(400, f"Extra inputs are not permitted: {sorted(odd)}", "BadRequestError")
        if path == "/v1/chat/completions/render":
            return self.render(body)
        if path == "/v1/chat/completions":
            return self.encode(body)
        name = body.get("model", engine.model)
        if path == "/generate":
            name = body.get("lora_path") or engine.model
        if engine.kind == "vllm" and body.get("priority") and not t["priorities"]:
            raise Refused(400, "Got priority but Priority scheduling is not enabled.")
        if name != engine.model and name not in t["adapters"]:
            said = f"The model `{name}` does not exist. Valid aliases: {engine.model}."
            raise Refused(404, said, "NotFoundError", "model")
        sampling = body.get("sampling_params", body)
        ids = body.get("token_ids") or body.get("input_ids") or body.get("prompt")
        if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
            raise Refused(400, "token ids are wanted", "BadRequestError")
        most = sampling.get("max_tokens") or sampling.get("max_new_tokens") or 16
        if len(ids) >= t["context"]:
            said = (
                f"This model's maximum context length is {t['context']} tokens. However, your "
                f"prompt contains {len(ids)} input tokens, which exceeds this limit even without "
                f"any output tokens. (parameter=input_tokens, value={len(ids)})"
            )
            raise Refused(400, said, param="input_tokens")
        if ids and max(ids) >= t["vocabulary"]:
            raise Refused(400, f"Token id {max(ids)} is out of vocabulary")
        if engine.role == "encode":
            raise Refused(500, "this one has no language model", "InternalServerError")
        ids = self.with_pictures(path, body, ids)
        if len(ids) + most > t["context"]:
            raise Refused(400, f"{len(ids)} tokens and {most} more are too many")
        rank = self.rank(body)
        with engine.lock:
            engine.requests.append({"path": path, "rank": rank, "body": body})
            del engine.requests[:-MOST_REQUESTS_KEPT]
            engine.made += 1
        if t["fail"] == "500":
            raise Refused(500, "Internal server error", "InternalServerError")
        if t["fail"] == "400":
            raise Refused(400, "what this engine doesn't like")
        if t["fail"] == "dead":
            self.wait(lambda: engine.traits["fail"] != "dead", 3600)
        Answer(self, path, body, sampling, ids, most, rank).run()

    def rank(self, body):
        engine = self.engine
        count = len(engine.ranks)
        said = self.headers.get("X-data-parallel-rank") if engine.kind == "vllm" else None
        for name in ("routed_dp_rank", "data_parallel_rank"):
            if engine.kind == "sglang" and body.get(name) is not None:
                said = body[name]
        try:
            rank = int(said)
        except (TypeError, ValueError):
            with engine.lock:
                engine.next_rank += 1
                return (engine.next_rank - 1) % count
        if not 0 <= rank < count:
            raise Refused(400, f"data_parallel_rank {rank} is out of range [0, {count}).")
        return rank

    def render(self, body):
        """What a chat becomes: token ids, and what the model takes of its pictures."""
        with self.engine.lock:
            self.engine.requests.append({"path": self.path, "rank": 0, "body": body})
        try:
            items = vision.items_of(body["messages"])
        except (AssertionError, KeyError, ValueError) as e:
            raise Refused(400, f"a picture that can't be read: {e}") from e
        if any(item.kind == "video" for _, item in items) and not self.engine.traits["video"]:
            raise Refused(400, "At most 0 video(s) may be provided in one prompt.")
        for uuid, item in items:
            probes = not uuid.strip("0") or uuid.startswith("0" * 60)
            if item.kind == "image" and not probes and uuid != item.content:
                raise Refused(400, "that is the name of another picture")
        said = {"request_id": f"chatcmpl-{os.urandom(8).hex()}", "token_offsets": None}
        return self.answer({**vision.rendered(body["messages"]), **said, "model": body["model"]})

    def with_pictures(self, path, body, ids):
        """The ids with rows of pictures in their places, each told from all others."""
        engine, t = self.engine, self.engine.traits
        if engine.kind == "sglang":
            return self.expanded(body, ids)
        features = body.get("features")
        if not features:
            return ids
        if not t["vision"] or path != "/inference/v1/generate":
            raise Refused(400, "this model reads texts alone")
        extra = (body.get("sampling_params") or {}).get("extra_args") or {}
        kv, ec = extra.get("kv_transfer_params") or {}, extra.get("ec_transfer_params") or {}
        placed, names = [], {}
        for kind, hashes in features["mm_hashes"].items():
            places = features["mm_placeholders"][kind]
            kwargs = (features.get("kwargs_data") or {}).get(kind) or [None] * len(hashes)
            for uuid, place, own in zip(hashes, places, kwargs):
                content = self.content_of(uuid, own, ec, bool(kv.get("do_remote_prefill")))
                offset, length = place["offset"], place["length"]
                mark = vision.VIDEO if kind == "video" else vision.IMAGE
                if ids[offset : offset + length] != [mark] * length:
                    raise Refused(400, "placeholders are not where they are said to be")
                placed.append((content, offset, length))
                for i in range(length):
                    names[vision.row(content, i)] = (uuid, i, mark)
        with engine.lock:
            engine.row_names.update(names)
        return vision.effective(ids, placed)

    def content_of(self, uuid, kwargs, params, pulled):
        """The picture by what its embeddings are made of: an encoder's, else its own pixels."""
        engine = self.engine
        folder = engine.traits["ec_dir"]
        if pulled:
            return uuid  # its KV is another's
        if kwargs is None:
            raise Refused(500, f"no kwargs of {uuid}", "InternalServerError")
        said = json.loads(base64.b64decode(kwargs))
        left = pathlib.Path(folder, uuid) if folder else None
        found = bool(left and left.exists())
        if params.get(uuid) and not found:
            raise Refused(500, "embeddings that nobody made", "InternalServerError")
        with engine.lock:
            engine.encodings["elsewhere" if found else "here"] += 1
        return left.read_text() if found else said["content"]

    def expanded(self, body, ids):
        """SGLang's: one placeholder for each picture, which takes its rows' place."""
        urls = body.get("image_data") or []
        mark = self.engine.traits["image_token"]
        if not urls and not self.engine.traits["vision"]:
            return ids  # a token like others
        if len(urls) != ids.count(mark) or (urls and not self.engine.traits["vision"]):
            raise Refused(400, f"{len(urls)} pictures at {ids.count(mark)} places")
        if urls and self.engine.traits["language_only"] and not self.engine.encoder_urls:
            raise Refused(500, "No encoder is there", "InternalServerError")
        out, left = [], list(urls)
        for token in ids:
            if token != mark or not urls:
                out.append(token)
                continue
            try:
                item = vision.item_of_url(left.pop(0))
            except (AssertionError, ValueError) as e:
                raise Refused(400, f"a picture that can't be read: {e}") from e
            out += [vision.row(item.content, i) for i in range(item.rows)]
        return out

    def encode(self, body):
        """A chat: only encoders are asked so."""
        engine, t = self.engine, self.engine.traits
        if engine.role != "encode":
            raise Refused(400, "this fake takes tokens alone")
        with engine.lock:
            engine.requests.append({"path": self.path, "rank": 0, "body": body})
            engine.encodings["open"] += 1
        try:
            if t["fail_encode"] == "500":
                raise Refused(500, "Internal server error", "InternalServerError")
            if t["fail_encode"] == "die":
                engine.die()
            if t["fail_encode"] == "stall":
                self.wait(lambda: t["fail_encode"] != "stall", 3600)
            self.wait(lambda: False, t["encode_s"])
        finally:
            with engine.lock:
                engine.encodings["open"] -= 1
        items = vision.items_of(body["messages"])
        params = {}
        for at, (uuid, item) in enumerate(items):
            params[uuid] = {"item_indices": [at], "metadata": item.metadata}
            if t["ec_dir"]:
                new = pathlib.Path(t["ec_dir"], f".{uuid}-{os.urandom(4).hex()}")
                new.write_text(item.content)
                new.rename(new.with_name(uuid))
            with engine.lock:
                engine.encodings["made"] += 1
        params = params if t["ec_params"] else None
        none = ("refusal", "annotations", "audio", "function_call", "reasoning")
        message = {"role": "assistant", "content": "", **dict.fromkeys(none)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        prompt = vision.rendered(body["messages"])["token_ids"]
        usage = {
            "prompt_tokens": len(prompt),
            "total_tokens": len(prompt),
            "completion_tokens": 0,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        }
        self.answer(
            {
                "id": "chatcmpl-" + os.urandom(8).hex(),
                "object": "chat.completion",
                "created": int(time.time()),
                "model": self.engine.model,
                "choices": [
                    {**choice, "stop_reason": None, "token_ids": [], "routed_experts": None}
                ],
                "service_tier": None,
                "system_fingerprint": f"vllm-{self.engine.version}-00000000",
                "usage": usage,
                "prompt_logprobs": None,
                "prompt_token_ids": prompt,
                "prompt_text": None,
                "kv_transfer_params": None,
                "ec_transfer_params": params,
                "metrics": None,
            }
        )


class Answer:
    """One request's way through the engine."""

    def __init__(self, http_, path, body, sampling, ids, most, rank):
        self.http, self.engine, self.path, self.body = http_, http_.engine, path, body
        self.sampling, self.ids, self.most, self.rank = sampling, ids, most, rank
        self.traits = self.engine.traits
        self.logprobs = sampling.get("logprobs")
        self.params = body.get("kv_transfer_params")
        self.params = self.params or (sampling.get("extra_args") or {}).get("kv_transfer_params")
        prefix = "generate-tokens-" if path == "/inference/v1/generate" else "cmpl-"
        own = http_.headers.get("X-Request-Id") or body.get("request_id") or os.urandom(8).hex()
        self.id = body.get("rid") or prefix + own
        self.handed = None
        named = body.get("lora_path") or body.get("model") or self.engine.model
        self.adapter = named if named in self.traits["adapters"] else ""
        self.tokens = tokens_after(ids, most, self.adapter)
        self.created = int(time.time())

    def run(self):
        salt = self.body.get("cache_salt")
        extra = self.body.get("vllm_xargs") or self.sampling.get("extra_args") or {}
        again = extra.get("kv_cache_report_mode") == "full" and self.traits["fingerprint"]
        chain, self.cached = self.engine.admit(self.rank, self.ids, salt, self.adapter, again)
        try:
            time.sleep(self.traits["token_s"] * (len(self.ids) - self.cached))
            self.transfer(chain)
            stream = self.body.get("stream", False)
            if self.path == "/inference/v1/generate" and self.traits["generate"] == "whole":
                stream = False
            self.stream() if stream else self.whole()
            made = self.tokens[:-1]
            if (len(self.ids) + len(made)) // self.traits["page"] > len(chain):
                self.engine.grow(self.rank, self.ids + made, salt, self.adapter)
        finally:
            self.engine.finish(self.rank, chain)

    def transfer(self, chain):
        if self.engine.kind == "sglang":
            return self.bootstrap()
        if self.engine.kind == "trtllm":
            return self.disaggregate()
        if not self.params or not self.engine.role:
            return None
        if self.traits["connector"] == "mooncake":
            return self.mooncake(chain)
        p = self.params
        if p.get("do_remote_decode"):
            count = -(-len(self.ids) // self.traits["page"])
            name = f"{self.id}-{os.urandom(4).hex()}"
            numbers = [b.number for b in chain] + [self.traits["blocks"]] * (count - len(chain))
            self.engine.hand_over(self.rank, chain, name)
            self.handed = {
                "do_remote_prefill": True,
                "do_remote_decode": False,
                "remote_block_ids": [numbers],
                "remote_engine_id": self.engine.id,
                "remote_request_id": name,
                "remote_host": "127.0.0.1",
                "remote_port": self.engine.port,
                "tp_size": 1,
                "dcp_size": 1,
                "pp_size": 1,
                "remote_num_tokens": len(self.ids),
                "remote_blocks_expiry_time": None,
                "transfer_mode": "pull",
                "remote_prefill_cached_tokens": self.cached,
            }
        elif p.get("do_remote_prefill"):
            if not p.get("remote_block_ids"):
                said = "EngineCore encountered an issue. See stack trace (above) for the root "
                said += "cause."
                self.http.refuse(Refused(500, said, "InternalServerError"))
                self.http.wfile.flush()
                self.engine.die()
            if any(not p.get(k) for k in NIXL_KEYS):
                try:
                    self.http.wait(lambda: False, 3600)
                except Gone:
                    self.engine.die()
            name = p["remote_request_id"]
            if not self.engine.ask(p["remote_host"], p["remote_port"], f"/fake/pull?id={name}"):
                raise Refused(500, "Internal server error", "InternalServerError")
        return None

    def mooncake(self, chain):
        """Both legs at once; the one that decodes waits for its prefill."""
        p = self.params
        if p.get("do_remote_decode"):
            self.engine.hand_over(self.rank, chain, p["transfer_id"])
            return
        host, _, port = p["remote_bootstrap_addr"].removeprefix("http://").partition(":")
        path = f"/fake/pull?id={p['transfer_id']}"
        if not self.http.wait(lambda: self.engine.ask(host, port, path), self.traits["match_s"]):
            raise Refused(500, "Internal server error", "InternalServerError")

    def bootstrap(self):
        room, engine = self.body.get("bootstrap_room"), self.engine
        if engine.role not in ("prefill", "decode"):
            return
        if self.body.get("bootstrap_host") == "2.2.2.2":
            return  # pretended
        if room is None:
            raise Refused(400, "Disaggregated request received without bootstrap room id.")
        room, seconds = str(room), self.traits["match_s"]
        if engine.role == "prefill":
            with engine.lock:
                engine.rooms[room] = "waits"
            try:
                met = self.http.wait(lambda: engine.rooms[room] == "taken", seconds)
            finally:
                with engine.lock:
                    engine.rooms.pop(room, None)
        else:
            host, port = self.body["bootstrap_host"], self.body["bootstrap_port"]
            path = f"/fake/room?room={room}"
            met = self.http.wait(lambda: engine.ask(host, port, path), seconds)
        if not met:
            raise Refused(500, f"Request timed out in room {room}", "InternalServerError")

    def disaggregate(self):
        p = self.body.get("disaggregated_params")
        if not p:
            return
        state = base64.b64encode(hashlib.sha256(json.dumps(self.ids).encode()).digest()).decode()
        if p["request_type"] == "context_only":
            self.handed = {
                "request_type": "context_only",
                "first_gen_tokens": self.tokens[:1],
                "ctx_request_id": int.from_bytes(os.urandom(7), "big"),
                "encoded_opaque_state": state,
                "draft_tokens": None,
            }
        elif p.get("encoded_opaque_state") != state or p.get("first_gen_tokens") != (
            self.tokens[:1]
        ):
            raise Refused(500, "Internal server error", "InternalServerError")

    # The forms of answers.

    def token_logprobs(self, ids):
        if self.logprobs is None:
            return None
        if self.path != "/inference/v1/generate":
            names = [f"token_id:{i}" for i in ids]
            return {
                "text_offset": [0] * len(ids),
                "token_logprobs": [-0.5] * len(ids),
                "tokens": names,
                "top_logprobs": [{n: -0.5} for n in names],
            }
        out = []
        for i in ids:
            one = {"token_id": i, "logprob": -0.5, "rank": 1}
            if self.traits["generate"] == "whole":
                one = {"token": f"token_id:{i}", "logprob": -0.5, "bytes": None}
            out.append({**one, "top_logprobs": [one]})
        return {"content": out}

    def usage(self, count, details=None):
        out = {
            "prompt_tokens": len(self.ids),
            "total_tokens": len(self.ids) + count,
            "completion_tokens": count,
        }
        if self.cached and (details is not None or self.engine.kind == "trtllm"):
            out["prompt_tokens_details"] = {"cached_tokens": self.cached}
        elif details:
            out["prompt_tokens_details"] = None
        return out

    def choice(self, ids, done, first, whole):
        finish = "length" if done else None
        new = self.traits["fingerprint"]
        if self.path == "/inference/v1/generate":
            c = {"index": 0, "finish_reason": finish, "token_ids": ids}
            c["logprobs"] = self.token_logprobs(ids)
            if new:
                weights = [{"version": "default", "start": 0, "end": self.most}] if done else None
                c.update(stop_reason=None, routed_experts=None, sampling_mask=None)
                c["weight_versions"] = weights
            return c
        c = {
            "index": 0,
            "text": "".join(f" {i}" for i in ids),
            "logprobs": self.token_logprobs(ids),
            "finish_reason": finish,
            "stop_reason": None,
        }
        if self.engine.kind == "trtllm":
            c["token_ids"] = ids
            c["disaggregated_params"] = self.handed
            return c
        asked = self.body.get("return_token_ids")
        c["prompt_token_ids"] = self.ids if asked and first else None
        c["token_ids"] = ids if asked else None
        if whole:
            c["prompt_logprobs"] = None
            if new:
                c["routed_experts"] = None
        return c

    def head(self):
        if self.path == "/inference/v1/generate":
            return {"request_id": self.id}
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.engine.model,
        }

    def sglang(self, out, i, done):
        shown = out[i:] if self.traits["incremental"] else out
        finish = {"type": "length", "length": len(out)} if done else None
        return {
            "text": "".join(f" {t}" for t in shown),
            "output_ids": shown,
            "meta_info": {
                "id": self.id,
                "finish_reason": finish,
                "prompt_tokens": len(self.ids),
                "weight_version": "default",
                "completion_tokens": len(out),
                "cached_tokens": self.cached,
                "e2e_latency": 0.01,
            },
        }

    def whole(self):
        out = []
        for i in range(self.most):
            if self.http.gone():
                raise Gone
            time.sleep(self.traits["step_s"])
            out.append(self.tokens[i])
        if self.engine.kind == "sglang":
            return self.http.answer(self.sglang(out, 0, True))
        new = self.traits["fingerprint"] and self.engine.kind == "vllm"
        answer = {**self.head(), "choices": [self.choice(out, True, True, True)]}
        answer["kv_transfer_params"] = self.handed
        if self.engine.kind == "trtllm":
            answer.pop("kv_transfer_params")
            answer["prompt_token_ids"] = self.ids
            answer["usage"] = self.usage(len(out))
            return self.http.answer(answer)
        usage = {**self.usage(len(out), True)}
        if new:
            usage["completion_tokens_details"] = None
            answer.update(ec_transfer_params=None, metrics=None)
        if self.path == "/inference/v1/generate":
            answer["prompt_logprobs"] = None
            if new:
                asked = self.body.get("return_token_ids")
                answer.update(model=self.engine.model, created=self.created, usage=usage)
                answer.update(prompt_token_id_logprobs=None, mm_placeholders=None)
                answer.update(prompt_token_ids=self.ids if asked else None, output_mode="tokens")
            return self.http.answer(answer)
        answer.update(usage=usage, service_tier=None)
        answer["system_fingerprint"] = f"vllm-{self.engine.version}-00000000" if new else None
        return self.http.answer(answer)

    def stream(self):
        http_, options = self.http, self.body.get("stream_options") or {}
        http_.send_response(200)
        http_.send_header("Content-Type", "text/event-stream; charset=utf-8")
        http_.send_header("Transfer-Encoding", "chunked")
        http_.end_headers()
        tokens_route = self.path == "/inference/v1/generate"
        out = []
        for i in range(self.most):
            if self.misbehaves(i):
                return
            if http_.gone():
                raise Gone
            time.sleep(self.traits["step_s"])
            out.append(self.tokens[i])
            done = i + 1 == self.most
            if self.engine.kind == "sglang":
                self.send(self.sglang(out, i, done))
                continue
            piece = {**self.head(), "choices": [self.choice(out[i:], done, i == 0, False)]}
            if tokens_route:
                piece.update(usage=None, output_mode="tokens")
            elif options.get("continuous_usage_stats"):
                piece["usage"] = self.usage(len(out), not self.traits["fingerprint"])
            self.send(piece)
        if self.engine.kind != "sglang" and options.get("include_usage"):
            last = {**self.head(), "choices": [], "usage": self.usage(len(out), False)}
            if tokens_route:
                last["output_mode"] = "tokens"
            elif self.engine.kind == "vllm" and self.traits["fingerprint"]:
                last["system_fingerprint"] = f"vllm-{self.engine.version}-00000000"
            self.send(last)
        self.send("[DONE]")
        http_.wfile.write(b"0\r\n\r\n")

    def send(self, what):
        self.raw(f"data: {what if isinstance(what, str) else compact(what)}\n\n")

    def raw(self, text):
        data = text.encode()
        self.http.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def misbehaves(self, i):
        """True where the stream has ended badly."""
        how = self.traits["fail"]
        if i != self.traits["fail_after"] or how not in ("stall", "drop", "sse", "json"):
            return False
        if how == "stall":
            self.http.wait(lambda: self.engine.traits["fail"] != "stall", 3600)
            return False
        if how == "json":
            self.send('{"choices":[{"token_ids":[1,')
        if how == "sse":
            self.raw("dota: }{\n\n\x00\x01 nothing of the kind\n\ndata\n\n")
        self.http.close_connection = True
        self.http.connection.shutdown(socket.SHUT_RDWR)
        return True


class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("vllm", "sglang", "trtllm"), default="vllm")
    parser.add_argument("--version", default=None)
    parser.add_argument("--model-dir", default="/nowhere/tiny", help="what it says is its root")
    parser.add_argument("--served-model-name", default="tiny")
    parser.add_argument("--events", action="store_true")
    parser.add_argument("--dp", type=int, default=1)
    parser.add_argument("--quirk", action="append", default=[], choices=list(TABLE["quirks"]))
    parser.add_argument("--set", action="append", default=[], metavar="TRAIT=VALUE")
    parser.add_argument("--role", choices=("prefill", "decode", "encode"))
    parser.add_argument("--port", type=int, default=0)
    ports = "PUB and ROUTER of each rank"
    parser.add_argument("--event-ports", type=int, nargs="*", default=[], help=ports)
    args = parser.parse_args()
    newest = {"vllm": "0.32.0", "sglang": "0.5.23", "trtllm": "1.2.1"}
    args.version = args.version or newest[args.kind]

    engine = Engine(args)
    Handler.engine = engine
    server = Server(("127.0.0.1", args.port), Handler)
    engine.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    own = [r.publisher.ports for r in engine.ranks if r.publisher]
    addresses = {
        "http": f"http://127.0.0.1:{engine.port}",
        "events": [f"tcp://127.0.0.1:{pub}" for pub, _ in own],
        "replay": [f"tcp://127.0.0.1:{replay}" for _, replay in own],
    }
    print(json.dumps(addresses), flush=True)
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
