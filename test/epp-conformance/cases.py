"""The cases. Each is a function of a Target; it returns (a note may be returned as text), raises
proxy.Failed with what was wrong, or Skipped with what it lacks."""

import concurrent.futures
import json
import os
import signal
import time

import grpc
import wire
from proxy import ENDPOINT, check, pieces_of
from wire import DESTINATION, pb

CASES = []
UNREACHABLE = "192.0.2.66:1"  # from a range that is for documentation
LARGEST_PIECE = 65536


class Skipped(Exception):
    """What would be needed."""


def case(must, about):
    """`must`: the protocol demands it; else it is what a good picker does."""

    def add(function):
        CASES.append((function.__name__, must, about, function))
        return function

    return add


class Target:
    """The picker and what is known of what is behind it."""

    def __init__(self, options, channel, proxy):
        self.options = options
        self.channel = channel
        self.proxy = proxy
        self.endpoints = options.endpoints

    def body(self, text="Hello", model=None):
        name = model or self.options.model
        if self.options.path.endswith("/chat/completions"):
            messages = [{"role": "user", "content": text}]
            return json.dumps({"model": name, "messages": messages, "max_tokens": 4}).encode()
        return json.dumps({"model": name, "prompt": text, "max_tokens": 4}).encode()

    def needs_endpoints(self, count=1):
        if len(self.endpoints) < count:
            raise Skipped(f"--endpoints with {count} or more")

    def check_endpoints(self, endpoints, among=None):
        for e in endpoints:
            check(ENDPOINT.match(e), f"{e!r} is no ip:port")
        check(len(set(endpoints)) == len(endpoints), f"an endpoint is there twice: {endpoints}")
        among = among if among is not None else self.endpoints
        check(not among or set(endpoints) <= set(among), f"{endpoints} are not among {among}")

    def still_serves(self):
        self.check_endpoints(self.proxy.pick(self.body("still there")).endpoints)


# Subset hint


@case(True, "Without a subset hint any endpoint of the pool may be picked.")
def subset_absent(t):
    t.check_endpoints(t.proxy.pick(t.body()).endpoints)


@case(True, "With a subset hint every endpoint named is one of the subset.")
def subset_present(t):
    t.needs_endpoints(2)
    for one in t.endpoints:
        answer = t.proxy.pick(t.body(f"for {one}"), subset=[one])
        t.check_endpoints(answer.endpoints, [one])
    some = t.endpoints[:2]
    for i in range(6):
        t.check_endpoints(t.proxy.pick(t.body(f"n {i}"), subset=some).endpoints, some)


@case(True, "A subset of which some members are unknown is used for the others.")
def subset_partly_eligible(t):
    t.needs_endpoints()
    answer = t.proxy.pick(t.body(), subset=[UNREACHABLE, t.endpoints[0]])
    t.check_endpoints(answer.endpoints, [t.endpoints[0]])


def refused_503(t, subset):
    answer, stream = t.proxy.ask(t.body(), subset=subset)
    stream.close()
    check(answer.status == 503, f"status {answer.status}, picked {answer.sets}")


@case(True, "An empty subset is answered with 503.")
def subset_empty(t):
    refused_503(t, [])


@case(True, "A subset without an eligible endpoint is answered with 503.")
def subset_none_eligible(t):
    refused_503(t, [UNREACHABLE])


@case(True, "The subset holds for requests without a body, too.")
def subset_of_get(t):
    t.needs_endpoints(2)
    for one in t.endpoints:
        stream = t.proxy.begin(end=True, method="GET", path="/v1/models", subset=[one])
        message = stream.receive()
        stream.close()
        check(message.WhichOneof("response") == "request_headers", str(message)[:200])
        sets = message.request_headers.response.header_mutation.set_headers
        values = [o.header.raw_value.decode() or o.header.value for o in sets
                  if o.header.key == DESTINATION]
        check(values == [one], f"{values} for the subset [{one}]")


# The pick


@case(True, "The pick is a header and metadata of envoy.lb, both with the same value.")
def header_equals_metadata(t):
    for i in range(4):
        answer = t.proxy.pick(t.body(f"n {i}"))
        check(answer.metadata is not None, "no metadata envoy.lb/" + DESTINATION)
        value = ",".join(answer.endpoints)
        check(value == answer.metadata, f"header {value!r}, metadata {answer.metadata!r}")


@case(True, "Fallbacks are ip:port, different from each other, within the subset.")
def fallback_order(t):
    t.needs_endpoints(2)
    most = 0
    for i in range(4):
        endpoints = t.proxy.pick(t.body(f"fallback {i}")).endpoints
        t.check_endpoints(endpoints)
        most = max(most, len(endpoints))
    subset = t.endpoints[:2]
    t.check_endpoints(t.proxy.pick(t.body("of two"), subset=subset).endpoints, subset)
    return f"up to {most - 1} fallbacks"


@case(False, "Requests with the same long prefix, at the same time, get endpoints; how many is noted.")
def same_prefix(t):
    # At the same time: nothing is sent to the endpoints, so that their caches never hold it.
    text = "the same words again and again " * 200
    seen, streams = set(), []
    for i in range(4):
        answer, stream = t.proxy.ask(t.body(text + str(i)))
        streams.append(stream)
        check(answer.status == 0, f"status {answer.status}")
        seen.add(answer.endpoints[0])
    for stream in streams:
        stream.close()
    return f"{len(seen)} different ones for 4 requests"  # a picker may have its reasons


@case(False, "The route is chosen again after the pick (clear_route_cache).")
def clears_route_cache(t):
    check(t.proxy.pick(t.body()).clear_route_cache, "clear_route_cache is not set")


@case(True, "The answer to the headers comes before the body.")
def headers_first(t):
    order = t.proxy.pick(t.body("x" * 200_000)).order
    check(order[0] == "request_headers", f"order {order[:3]}")
    check(order.count("request_headers") == 1, "headers are answered more than once")


# Bodies


def goes_through(t, body, size, seconds=wire.SECONDS):
    answer = t.proxy.pick(body, size=size, seconds=seconds)
    check(json.loads(answer.body) == json.loads(body), "the body is not what was sent")
    check(max(answer.pieces) <= LARGEST_PIECE, f"a piece has {max(answer.pieces)} bytes")
    t.check_endpoints(answer.endpoints)


for _size in (1, 7, 1000, 16384, 62000, 65536):

    def _chunks(t, size=_size):
        goes_through(t, t.body("é" * (150 if size == 1 else 90_000)), size)

    _chunks.__name__ = f"chunks_of_{_size}"
    case(True, f"A body that comes in pieces of {_size} bytes goes on whole.")(_chunks)


@case(True, "An empty last piece ends a body.")
def empty_last_piece(t):
    stream = t.proxy.begin()
    body = t.body("empty end")
    stream.send(request_body=pb.HttpBody(body=body))
    stream.send(request_body=pb.HttpBody(end_of_stream=True))
    answer = t.proxy.collect(stream)
    stream.close()
    check(answer.status == 0 and json.loads(answer.body) == json.loads(body), str(answer.status))


@case(True, "A body larger than every flow-control window goes on whole.")
def body_beyond_window(t):
    goes_through(t, t.body("word " * (t.options.large_body // 5)), 65536, seconds=60)


@case(False, "A body beyond the picker's limit is refused with 413, while it comes.")
def body_beyond_limit(t):
    if not t.options.max_body:
        raise Skipped("--max-body BYTES, the picker's limit")
    stream = t.proxy.begin()
    piece = b" " * 65536
    for _ in range(t.options.max_body // len(piece) + 2):
        stream.send(request_body=pb.HttpBody(body=piece))
    answer = t.proxy.collect(stream)
    stream.close()
    check(answer.status == 413, f"status {answer.status}")
    t.still_serves()


@case(True, "A body that is no JSON is served or refused, not left without an answer.")
def body_is_no_json(t):
    for body in (b"{", b"\xff\xfe\x00", b"null", b"{}"):
        answer, stream = t.proxy.ask(body)
        stream.close()
        if answer.status == 0:
            check(answer.body == body, "the body is not what was sent")
            t.check_endpoints(answer.endpoints)
        else:
            check(400 <= answer.status < 500, f"status {answer.status} for {body!r}")


@case(True, "A request of a model that nobody serves is served or refused, not left hanging.")
def unknown_model(t):
    answer, stream = t.proxy.ask(t.body(model="no-such-model-anywhere"))
    stream.close()
    check(answer.status == 0 or 400 <= answer.status < 600, f"status {answer.status}")
    return f"status {answer.status}" if answer.status else "passed on"


@case(True, "A GET without a body gets an endpoint at once.")
def get_without_body(t):
    answer = t.proxy.get("/v1/models")
    check(answer.status == 0, f"status {answer.status}")
    check(answer.order == ["request_headers"], f"answered with {answer.order}")
    t.check_endpoints(answer.endpoints)
    check(answer.metadata == ",".join(answer.endpoints), f"metadata {answer.metadata!r}")


@case(False, "Where the proxy buffers bodies, headers are answered before the body is there.")
def buffered_mode(t):
    body = t.body("buffered")
    stream = t.proxy.begin(mode=wire.BUFFERED)
    first = stream.receive()
    check(first.WhichOneof("response") == "request_headers", "headers were not answered")
    stream.send(request_body=pb.HttpBody(body=body, end_of_stream=True))
    second = stream.receive()
    stream.close()
    check(second.WhichOneof("response") == "request_body", "the body was not answered")
    common = second.request_body.response
    check(common.body_mutation.WhichOneof("mutation") != "streamed_response",
          "a buffered body was answered in pieces")
    sets = [*first.request_headers.response.header_mutation.set_headers,
            *common.header_mutation.set_headers]
    check(any(o.header.key == DESTINATION for o in sets), "nothing was picked")


# Trailers and the answer


@case(True, "Request trailers are answered, after a body that has not ended before.")
def request_trailers(t):
    body = t.body("trailers")
    answer, stream = t.proxy.ask(body, size=50, trailers=True)
    stream.close()
    check(answer.status == 0, f"status {answer.status}")
    check(answer.trailers, "the trailers were not answered")
    check(json.loads(answer.body) == json.loads(body), "the body is not what was sent")
    check(answer.order[-1] == "request_trailers", "the trailers were answered before the body")
    check(not answer.body_ended, "the body was ended before the trailers")


@case(True, "Answers go on whole, in pieces, with and without trailers.")
def response_goes_on(t):
    data = json.dumps({"id": "x", "choices": [], "text": "é" * 40_000}).encode()
    for trailers in (False, True):
        answer, stream = t.proxy.ask(t.body(f"response {trailers}"))
        check(answer.status == 0, f"status {answer.status}")
        got = t.proxy.respond(stream, pieces_of(data, 16384), trailers=trailers)
        stream.close()
        check(got == data, "the answer is not what the server sent")


@case(True, "Events of an answer go on as they come, not at its end.")
def events_go_on_at_once(t):
    answer, stream = t.proxy.ask(t.body("events"))
    check(answer.status == 0, f"status {answer.status}")
    stream.send(response_headers=pb.HttpHeaders(headers=wire.header_map(
        [(":status", "200"), ("content-type", "text/event-stream")])))
    stream.receive()
    for i in range(5):
        event = f'data: {{"n": {i}}}\n\n'.encode()
        stream.send(response_body=pb.HttpBody(body=event))
        piece = stream.receive(5).response_body.response.body_mutation.streamed_response
        check(piece.body == event, f"event {i} did not come on")
    stream.send(response_body=pb.HttpBody(body=b"data: [DONE]\n\n", end_of_stream=True))
    last = stream.receive().response_body.response.body_mutation.streamed_response
    stream.close()
    check(last.end_of_stream, "the end did not come on")


@case(True, "The endpoint that served a request may be another one of the list.")
def served_by_fallback(t):
    t.needs_endpoints(2)
    for served in (*t.endpoints, UNREACHABLE):
        answer, stream = t.proxy.ask(t.body(f"served by {served}"))
        check(answer.status == 0, f"status {answer.status}")
        check(t.proxy.respond(stream, [b"{}"], served=served) == b"{}", "the answer got lost")
        stream.close()
    t.still_serves()


# Clients that leave, and proxies that err


def leave(t, where):
    body = t.body("left " * 2000)
    stream = t.proxy.begin()
    if where == "headers":
        return stream.cancel()
    stream.send(request_body=pb.HttpBody(body=body[:5000]))
    if where == "body":
        return stream.cancel()
    stream.send(request_body=pb.HttpBody(body=body[5000:], end_of_stream=True))
    if where == "end of the body":
        return stream.cancel()
    t.proxy.collect(stream)
    if where == "pick":
        return stream.cancel()
    stream.send(response_headers=pb.HttpHeaders(headers=wire.header_map([(":status", "200")])))
    stream.receive()
    if where == "response headers":
        return stream.cancel()
    stream.send(response_body=pb.HttpBody(body=b"data: 1\n\n"))
    stream.receive()
    return stream.cancel()


for _where in ("headers", "body", "end of the body", "pick", "response headers", "response body"):

    def _abort(t, where=_where):
        for _ in range(5):
            leave(t, where)
        t.still_serves()

    _abort.__name__ = "abort_after_" + _where.replace(" ", "_")
    case(True, f"Clients that leave after the {_where} harm nobody.")(_abort)


@case(True, "A proxy that closes its side after the pick ends the stream, well.")
def closed_after_pick(t):
    answer, stream = t.proxy.ask(t.body("closed"))
    check(answer.status == 0, f"status {answer.status}")
    stream.close()
    try:
        stream.receive()
    except wire.Ended as e:
        check(e.code is None, f"it ended with {e.code}")


@case(False, "A body without headers ends that stream alone, with an error.")
def body_before_headers(t):
    stream = wire.Stream(t.channel)
    stream.send(request_body=pb.HttpBody(body=b"{}", end_of_stream=True))
    try:
        message = stream.receive()
        check(message.WhichOneof("response") == "immediate_response", str(message)[:200])
    except wire.Ended as e:
        check(e.code is not None, "the stream ended as if all were well")
    stream.close()
    t.still_serves()


@case(True, "Requests at the same time are all answered.")
def many_at_once(t):
    def one(i):
        return t.proxy.pick(t.body(f"{i} at once " * 50)).endpoints

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for endpoints in pool.map(one, range(128)):
            t.check_endpoints(endpoints)


# What clients forge


@case(True, "A destination that the client forged is overwritten.")
def spoofed_destination(t):
    answer = t.proxy.pick(t.body(), more=[(DESTINATION, UNREACHABLE)])
    check(UNREACHABLE not in answer.endpoints, "the forged endpoint was taken")
    t.check_endpoints(answer.endpoints)
    actions = [a for n, _, a in answer.sets if n == DESTINATION]
    # 0 appends, 1 adds only where there is none: both leave the client's value there.
    check(actions[0] in (2, 3), f"append_action {actions[0]} leaves the client's value there")


@case(True, "The same for a request without a body.")
def spoofed_destination_of_get(t):
    stream = t.proxy.begin(more=[(DESTINATION, UNREACHABLE)], end=True, method="GET",
                           path="/v1/models")
    sets = stream.receive().request_headers.response.header_mutation.set_headers
    stream.close()
    mine = [o for o in sets if o.header.key == DESTINATION]
    check(len(mine) == 1 and mine[0].append_action in (2, 3), f"{mine}")
    check(mine[0].header.raw_value.decode() != UNREACHABLE, "the forged endpoint was taken")


@case(False, "Other headers of the system that the client forged go no further.")
def spoofed_system_headers(t):
    forged = [("x-gateway-destination-endpoint-subset", UNREACHABLE),
              ("x-gateway-destination-endpoint-served", UNREACHABLE),
              ("x-prefiller-host-port", UNREACHABLE),
              ("x-data-parallel-host-port", UNREACHABLE)]
    answer = t.proxy.pick(t.body(), more=forged)
    t.check_endpoints(answer.endpoints)
    gone = {n.lower() for n in answer.removes} | {n for n, _, a in answer.sets if a in (2, 3)}
    left = [n for n, _ in forged if n not in gone]
    check(not left, f"still there: {left}")


@case(True, "Header values with control characters and bytes beyond ASCII harm nobody.")
def odd_header_values(t):
    more = [("x-odd", b"\x01\x02\xff"), ("x-llm-d-inference-objective", b"\x00\xfe"),
            ("x-llm-d-inference-fairness-id", "é" * 200), ("x-long", "y" * 30_000)]
    answer, stream = t.proxy.ask(t.body(), more=more)
    stream.close()
    check(answer.status == 0 or 400 <= answer.status < 500, f"status {answer.status}")
    t.still_serves()


# Health and the end


def health(t, service):
    stub = wire.health_grpc.HealthStub(t.channel_of_health())
    return stub.Check(wire.health_pb.HealthCheckRequest(service=service), timeout=5).status


SERVICES = ("liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor")
SERVING, NOT_SERVING = 1, 2

for _service in SERVICES:

    def _health(t, service=_service):
        check(health(t, service) == SERVING, f"{service}: {health(t, service)}")

    _health.__name__ = "health_" + _service.rpartition(".")[2]
    case(True, f"gRPC health of `{_service}` says SERVING.")(_health)


@case(True, "gRPC health of an unknown service is NOT_FOUND.")
def health_unknown(t):
    try:
        status = health(t, "no.such.Service")
    except grpc.RpcError as e:
        check(e.code() == grpc.StatusCode.NOT_FOUND, f"it is {e.code()}")
        return
    check(status == 3, f"it says {status}")  # SERVICE_UNKNOWN


@case(False, "Told to end (SIGTERM) it says that it is not ready, and finishes what it has.")
def drain(t):
    if not t.options.drain_pid:
        raise Skipped("--drain-pid PID, which ends the picker")
    body = t.body("at the end")
    stream = t.proxy.begin()
    stream.send(request_body=pb.HttpBody(body=body[:10]))
    os.kill(t.options.drain_pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while health(t, "readiness") != NOT_SERVING:
        check(time.monotonic() < deadline, "readiness is still SERVING")
        time.sleep(0.02)
    check(health(t, "liveness") == SERVING, "liveness is not SERVING while it drains")
    stream.send(request_body=pb.HttpBody(body=body[10:], end_of_stream=True))
    answer = t.proxy.collect(stream)
    check(answer.status == 0, f"a request that had begun got {answer.status}")
    got = t.proxy.respond(stream, [b"{}"])
    check(got == b"{}", "its answer got lost")
    stream.close()
