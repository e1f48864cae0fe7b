"""A Kubernetes API server as far as clients of collections see one: list with pages, watch with
bookmarks, create, replace, merge-patch, delete, the scale subresource; and every way in which the
real one can go wrong, on demand.

Objects are whatever is put; nothing is validated but what a client's correctness depends on: resource
versions, conflicts, label selectors, expiry. Used by tests; run as a program it serves until its
standard input ends and prints its URL first.
"""

import base64
import collections
import contextlib
import copy
import http.server
import json
import re
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse

SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
KINDS = {
    "endpointslices": ("EndpointSlice", "discovery.k8s.io/v1"),
    "leases": ("Lease", "coordination.k8s.io/v1"),
    "pods": ("Pod", "v1"),
    "deployments": ("Deployment", "apps/v1"),
    "statefulsets": ("StatefulSet", "apps/v1"),
    "leaderworkersets": ("LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1"),
}
PATH = re.compile(
    r"^(?P<collection>/apis?/(?:[\w.-]+/)?v1/namespaces/[\w-]+/(?P<plural>\w+))"
    r"(?:/(?P<name>[\w.-]+))?(?:/(?P<sub>scale))?$"
)
EVENTS_KEPT = 2000


def matches(labels, selector):
    """Equality, inequality, sets and existence, as the API server reads them."""
    for part in re.findall(r"[^,(]+(?:\([^)]*\))?", selector or ""):
        part = part.strip()
        if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", part):
            values = {v.strip() for v in found[3].split(",")}
            if (labels.get(found[1]) in values) != (found[2] == "in"):
                return False
        elif "!=" in part:
            key, value = part.split("!=")
            if labels.get(key) == value:
                return False
        elif "=" in part:
            key, value = re.split("==?", part)
            if labels.get(key) != value:
                return False
        elif part.startswith("!"):
            if part[1:] in labels:
                return False
        elif part and part not in labels:
            return False
    return True


def status(code, reason, message="", **more):
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        **more,
    }


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


class Refuse(Exception):
    def __init__(self, code, reason, message="", headers=None):
        super().__init__(message)
        self.code, self.body = code, status(code, reason, message)
        self.headers = headers or {}


class Store:
    """What the server holds, and the last events of each collection."""

    def __init__(self):
        self.changed = threading.Condition()
        self.version = 100
        self.objects = collections.defaultdict(dict)
        self.events = collections.defaultdict(collections.deque)
        self.oldest = 0  # watches from before it are too old

    def _note(self, kind, collection, item):
        log = self.events[collection]
        log.append((self.version, kind, copy.deepcopy(item)))
        while len(log) > EVENTS_KEPT:
            self.oldest = max(self.oldest, log.popleft()[0])
        self.changed.notify_all()

    def put(self, collection, item, must_be=None):
        """`must_be`: "new", "there" or nothing. Returns the object as it is held now."""
        with self.changed:
            name = item["metadata"]["name"]
            held = self.objects[collection].get(name)
            if must_be == "new" and held:
                raise Refuse(409, "AlreadyExists", f"{name} already exists")
            if must_be == "there":
                if not held:
                    raise Refuse(404, "NotFound", f"{name} not found")
                wanted = item["metadata"].get("resourceVersion")
                if wanted and wanted != held["metadata"]["resourceVersion"]:
                    raise Refuse(409, "Conflict", "the object has been modified")
            self.version += 1
            item = copy.deepcopy(item)
            kind, api = KINDS[collection.rsplit("/", 1)[1]]
            item = {"apiVersion": api, "kind": kind, **item}
            item["metadata"] = {
                "namespace": collection.split("/namespaces/")[1].split("/")[0],
                "uid": f"uid-{name}",
                **item["metadata"],
                "resourceVersion": str(self.version),
            }
            self.objects[collection][name] = item
            self._note("MODIFIED" if held else "ADDED", collection, item)
            return copy.deepcopy(item)

    def delete(self, collection, name):
        with self.changed:
            item = self.objects[collection].pop(name, None)
            if item is None:
                raise Refuse(404, "NotFound", f"{name} not found")
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            self._note("DELETED", collection, item)
            return item

    def expire(self):
        """As after a compaction: every version but the present one is too old."""
        with self.changed:
            for log in self.events.values():
                log.clear()
            self.version += 1
            self.oldest = self.version
            self.changed.notify_all()

    def since(self, collection, version):
        """Events after `version`; None where it is too old. The lock is held."""
        if version < self.oldest:
            return None
        return [e for e in self.events[collection] if e[0] > version]


class Faults:
    """What goes wrong next. Thread-safe enough for tests: plain attributes, read once per use."""

    def __init__(self):
        self.answers = collections.deque()  # (status, headers, body) for the next requests
        self.piece = 0  # bytes per chunk of a watch; 0: an event each
        self.silent = False  # half-open: watches stay open and say nothing
        self.garbage = 0  # so many watches get nonsense instead of their next event
        self.expire_in_stream = True  # too old: as an event, or as a status
        self.bookmark_every = 0.5


class FakeKubeApi:
    """Serves on 127.0.0.1 from start() to stop(); may be started again, on the same port."""

    def __init__(self, tokens=(), tls=None, port=0, host="127.0.0.1"):
        self.store = Store()
        self.faults = Faults()
        self.tokens = set(tokens)
        self.tls = tls  # (certificate file, key file)
        self.port = port
        self.host = host
        self.requests = []  # (method, path with query)
        self.running = False
        self._server = None
        self._open = set()
        self._lock = threading.Lock()

    # -- life

    def start(self):
        api = self

        class Handler(RequestHandler):
            server_api = api

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # clients that leave are what tests are about

        self._server = Server((self.host, self.port), Handler)
        self.port = self._server.server_address[1]
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.running = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        """Connections break, new ones are refused."""
        self.running = False
        self._server.shutdown()
        self._server.server_close()
        self.cut()

    def cut(self):
        """Every open connection breaks."""
        with self._lock:
            doomed = list(self._open)
        for connection in doomed:
            with contextlib.suppress(OSError):
                connection.shutdown(2)

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        if self.running:
            self.stop()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def count(self, text):
        return sum(text in path for _, path in self.requests)

    # -- what tests put

    def put_slice(self, name, endpoints, service="workers", namespace="default", port=None, **more):
        """`endpoints`: (host, port, conditions) each; all of one slice share the port."""
        ports = {p for _, p, _ in endpoints} | ({port} if port else set())
        assert len(ports) <= 1
        return self.store.put(
            SLICES.format(namespace),
            {
                "metadata": {
                    "name": name,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": more.pop("family", "IPv4"),
                "ports": [{"name": "stator", "port": p, "protocol": "TCP"} for p in ports],
                "endpoints": [
                    {
                        "addresses": [host],
                        "conditions": conditions,
                        "targetRef": {"kind": "Pod", "name": f"pod-{p}", "uid": f"{host}-{p}"},
                    }
                    for host, p, conditions in endpoints
                ],
                **more,
            },
        )

    def delete_slice(self, name, namespace="default"):
        return self.store.delete(SLICES.format(namespace), name)


class RequestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_api = None

    def setup(self):
        super().setup()
        with self.server_api._lock:
            self.server_api._open.add(self.connection)

    def finish(self):
        with self.server_api._lock:
            self.server_api._open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *args):
        pass

    def answer(self, code, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_call(self):
        api = self.server_api
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        api.requests.append((self.command, self.path))
        try:
            if api.tokens and self.headers.get("Authorization", "")[7:] not in api.tokens:
                raise Refuse(401, "Unauthorized", "Unauthorized")
            if api.faults.answers:
                code, headers, text = api.faults.answers.popleft()
                self.answer(code, text, headers)
                return
            self.act(body)
        except Refuse as refusal:
            self.answer(refusal.code, refusal.body, refusal.headers)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_call  # noqa: N815

    def act(self, body):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        found = PATH.match(url.path)
        if not found or found["plural"] not in KINDS:
            raise Refuse(404, "NotFound", "the server could not find the requested resource")
        store, collection, name = self.server_api.store, found["collection"], found["name"]
        if found["sub"]:
            self.scale(collection, name, body)
        elif self.command == "GET" and name is None:
            if query.get("watch") in ("1", "true"):
                self.watch(collection, query)
            else:
                self.list(collection, query)
        elif self.command == "GET":
            with store.changed:
                item = store.objects[collection].get(name)
            if item is None:
                raise Refuse(404, "NotFound", f'{found["plural"]} "{name}" not found')
            self.answer(200, item)
        elif self.command == "POST" and name is None:
            self.answer(201, store.put(collection, json.loads(body), must_be="new"))
        elif self.command == "PUT":
            self.answer(200, store.put(collection, json.loads(body), must_be="there"))
        elif self.command == "PATCH":
            self.check_patch()
            with store.changed:
                held = copy.deepcopy(store.objects[collection].get(name))
            if held is None:
                raise Refuse(404, "NotFound", f"{name} not found")
            self.answer(200, store.put(collection, merge(held, json.loads(body)), must_be="there"))
        elif self.command == "DELETE":
            self.answer(200, store.delete(collection, name))
        else:
            raise Refuse(405, "MethodNotAllowed")

    def check_patch(self):
        if self.headers.get("Content-Type") != "application/merge-patch+json":
            raise Refuse(415, "UnsupportedMediaType", "merge patches alone")

    def scale(self, collection, name, body):
        store = self.server_api.store
        with store.changed:
            held = copy.deepcopy(store.objects[collection].get(name))
        if held is None:
            raise Refuse(404, "NotFound", f"{name} not found")
        if self.command == "PATCH":
            self.check_patch()
            wanted = json.loads(body)["spec"]["replicas"]
            held = store.put(collection, merge(held, {"spec": {"replicas": wanted}}))
        self.answer(
            200,
            {
                "kind": "Scale",
                "apiVersion": "autoscaling/v1",
                "metadata": {k: held["metadata"][k] for k in ("name", "namespace")},
                "spec": {"replicas": held.get("spec", {}).get("replicas", 0)},
                "status": {
                    "replicas": held.get("status", {}).get("replicas", 0),
                    "selector": held.get("status", {}).get("selector", ""),
                },
            },
        )

    def list(self, collection, query):
        store = self.server_api.store
        limit = int(query.get("limit") or 0)
        after, version = "", None
        if "continue" in query:
            version, after = json.loads(base64.urlsafe_b64decode(query["continue"]))
            if version < store.oldest:
                raise Refuse(410, "Expired", "The provided continue parameter is too old")
        with store.changed:
            version = version or store.version
            items = [
                item
                for name, item in sorted(store.objects[collection].items())
                if name > after
                and matches(item["metadata"].get("labels", {}), query.get("labelSelector"))
            ]
            items = copy.deepcopy(items)
        meta = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            items = items[:limit]
            token = json.dumps([version, items[-1]["metadata"]["name"]]).encode()
            meta["continue"] = base64.urlsafe_b64encode(token).decode()
        kind, api = KINDS[collection.rsplit("/", 1)[1]]
        self.answer(200, {"kind": kind + "List", "apiVersion": api, "metadata": meta, "items": items})

    # -- watch

    def send_piece(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def send_event(self, kind, item):
        data = json.dumps({"type": kind, "object": item}).encode() + b"\n"
        piece = self.server_api.faults.piece
        if not piece:
            self.send_piece(data)
            return
        for i in range(0, len(data), piece):
            self.send_piece(data[i : i + piece])

    def watch(self, collection, query):
        api = self.server_api
        store, faults = api.store, api.faults
        version = int(query.get("resourceVersion") or 0)
        selector = query.get("labelSelector")
        end = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        too_old = status(410, "Expired", f"too old resource version: {version} ({store.oldest})")
        if version < store.oldest and not faults.expire_in_stream:
            self.answer(410, too_old)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        if version == 0:
            with store.changed:
                version = store.version
                present = copy.deepcopy(list(store.objects[collection].values()))
            for item in present:
                if matches(item["metadata"].get("labels", {}), selector):
                    self.send_event("ADDED", item)
        bookmark_at = time.monotonic() + faults.bookmark_every
        while api.running and time.monotonic() < end:
            with store.changed:
                if store.version == version or faults.silent:
                    store.changed.wait(0.02)
                events = store.since(collection, version)
                now = store.version
            if faults.silent:
                continue
            if events is None:
                self.send_event("ERROR", too_old)
                break
            if events and faults.garbage > 0:
                faults.garbage -= 1
                self.send_piece(b'{"type":"ADDED","object":{"metadata":{"name":"half\n')
            for _, kind, item in events:
                if matches(item["metadata"].get("labels", {}), selector):
                    self.send_event(kind, item)
            version = now
            if time.monotonic() >= bookmark_at and query.get("allowWatchBookmarks"):
                bookmark_at = time.monotonic() + faults.bookmark_every
                name, of = KINDS[collection.rsplit("/", 1)[1]]
                self.send_event(
                    "BOOKMARK",
                    {
                        "kind": name,
                        "apiVersion": of,
                        "metadata": {"resourceVersion": str(version)},
                    },
                )
        if api.running:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True


def main():
    with FakeKubeApi(tokens=sys.argv[1:]) as api:
        print(api.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
