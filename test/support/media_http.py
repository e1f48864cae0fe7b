"""A server of images and videos on loopback that does what a test says, also what servers must not
do."""

import contextlib
import http.server
import threading


def content(data, kind="application/octet-stream", length=None, more=b""):
    """A route: an answer with `data`, that may claim another length, or send `more` than it."""

    def answer(request):
        request.send_response_only(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data) if length is None else length))
        request.end_headers()
        request.wfile.write(data + more)

    return answer


def endless(chunk, kind="image/png"):
    """A route: chunks without end."""

    def answer(request):
        request.send_response_only(200)
        request.send_header("Content-Type", kind)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while not request.server.stopping.is_set():
            request.wfile.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")

    return answer


def redirect(to):
    def answer(request):
        request.send_response_only(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def silent(request):
    """A route that takes the request and says nothing."""
    request.server.stopping.wait(60)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self.server.routes[self.path](self)

    def log_message(self, *_):
        pass


class MediaHttp(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = {}
        self.asked = []  # paths
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)

    def handle_error(self, *_):
        pass

    def url(self, route, path="/it"):
        """Where `route` answers from now on."""
        self.routes[path] = route
        return f"http://127.0.0.1:{self.server_port}{path}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.shutdown()
        self.server_close()
