"""What a gateway does with a stream: sends a request in pieces, collects what the picker says."""

import re

import wire
from wire import DESTINATION, pb

ENDPOINT = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+):\d{1,5}$")


class Failed(AssertionError):
    """What was not as the protocol has it."""


def check(condition, text):
    if not condition:
        raise Failed(text)


class Answer:
    """What the picker said of a request: a pick and a body, or an answer in the server's place."""

    def __init__(self):
        self.status = 0  # of an immediate response
        self.immediate_body = b""
        self.sets = []  # (name, value, append_action)
        self.removes = []
        self.metadata = None  # of the destination
        self.clear_route_cache = False
        self.body = b""
        self.pieces = []
        self.body_ended = False
        self.body_replaced = False
        self.trailers = False
        self.order = []

    @property
    def endpoints(self):
        values = [v for n, v, _ in self.sets if n.lower() == DESTINATION]
        check(len(values) == 1, f"{DESTINATION} is set {len(values)} times")
        return values[0].split(",")

    def take(self, message):
        kind = message.WhichOneof("response")
        self.order.append(kind)
        fields = message.dynamic_metadata.fields
        if "envoy.lb" in fields:
            lb = fields["envoy.lb"].struct_value.fields
            if DESTINATION in lb:
                self.metadata = lb[DESTINATION].string_value
        if kind == "immediate_response":
            self.status = message.immediate_response.status.code
            self.immediate_body = message.immediate_response.body
        elif kind == "request_headers":
            self._common(message.request_headers.response)
        elif kind == "request_body":
            self._common(message.request_body.response)
        elif kind == "request_trailers":
            self.trailers = True

    def _common(self, common):
        for option in common.header_mutation.set_headers:
            value = option.header.raw_value or option.header.value.encode()
            self.sets.append((option.header.key, value.decode(), option.append_action))
        self.removes += common.header_mutation.remove_headers
        self.clear_route_cache |= common.clear_route_cache
        mutation = common.body_mutation.WhichOneof("mutation")
        if mutation == "streamed_response":
            piece = common.body_mutation.streamed_response
            check(not self.body_ended, "a piece of the body came after the last one")
            self.body += piece.body
            self.pieces.append(len(piece.body))
            self.body_ended = piece.end_of_stream
        elif mutation == "body":
            self.body = common.body_mutation.body
            self.body_replaced = True


def pieces_of(body, size):
    return [body[i : i + size] for i in range(0, len(body), size)] or [b""]


class Proxy:
    """Requests to one picker."""

    def __init__(self, channel, path, authority="conformance.test"):
        self.channel = channel
        self.path = path
        self.authority = authority

    def headers(self, method="POST", path=None, more=()):
        return wire.header_map(
            [
                (":method", method),
                (":path", path or self.path),
                (":scheme", "http"),
                (":authority", self.authority),
                ("content-type", "application/json"),
                *more,
            ]
        )

    def begin(self, more=(), subset=None, mode=wire.FULL_DUPLEX, end=False, method="POST", path=None):
        stream = wire.Stream(self.channel)
        fields = {
            "request_headers": pb.HttpHeaders(
                headers=self.headers(method, path, more), end_of_stream=end
            ),
            "protocol_config": pb.ProtocolConfiguration(
                request_body_mode=mode, response_body_mode=wire.FULL_DUPLEX
            ),
        }
        if subset is not None:
            fields["metadata_context"] = wire.subset_of(subset)
        stream.send(**fields)
        return stream

    def ask(self, body, size=16384, more=(), subset=None, trailers=False, seconds=wire.SECONDS):
        """A whole request phase in full-duplex mode. Gives the stream too, for the answer's."""
        stream = self.begin(more, subset)
        parts = pieces_of(body, size)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1 and not trailers
            stream.send(request_body=pb.HttpBody(body=part, end_of_stream=last))
        if trailers:
            stream.send(request_trailers=pb.HttpTrailers(trailers=wire.header_map([("x-t", "1")])))
        return self.collect(stream, trailers, seconds), stream

    @staticmethod
    def collect(stream, trailers=False, seconds=wire.SECONDS):
        answer = Answer()
        while True:
            answer.take(stream.receive(seconds))
            if answer.status:
                return answer
            if trailers and answer.trailers or not trailers and answer.body_ended:
                return answer

    def pick(self, body, **options):
        """Endpoints of an ordinary request; fails where it got something else."""
        answer, stream = self.ask(body, **options)
        stream.close()
        check(answer.status == 0, f"it was answered with {answer.status}: {answer.immediate_body}")
        return answer

    def get(self, path):
        stream = self.begin(end=True, method="GET", path=path)
        answer = Answer()
        answer.take(stream.receive())
        stream.close()
        return answer

    def respond(self, stream, pieces, content_type="application/json", served=None, trailers=False):
        """The response phase; what the picker sent on of the body, and whether trailers came."""
        fields = {
            "response_headers": pb.HttpHeaders(
                headers=wire.header_map([(":status", "200"), ("content-type", content_type)])
            )
        }
        if served:
            fields["metadata_context"] = wire.metadata("envoy.lb", {wire.SERVED: served})
        stream.send(**fields)
        first = stream.receive()
        check(first.WhichOneof("response") == "response_headers", "no answer to response headers")
        body, ended, got_trailers = b"", False, False
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1 and not trailers
            stream.send(response_body=pb.HttpBody(body=piece, end_of_stream=last))
        if trailers:
            stream.send(response_trailers=pb.HttpTrailers(trailers=wire.header_map([("x", "1")])))
        while not (got_trailers if trailers else ended):
            message = stream.receive()
            if message.WhichOneof("response") == "response_trailers":
                got_trailers = True
                continue
            piece = message.response_body.response.body_mutation.streamed_response
            check(not ended, "a piece of the answer came after the last one")
            body += piece.body
            ended = piece.end_of_stream
        return body
