"""A proxy's side of ext_proc: one stream is one HTTP request."""

import importlib
import queue
import sys
import tempfile
import threading
from pathlib import Path

import grpc
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
DESTINATION = "x-gateway-destination-endpoint"
SERVED = "x-gateway-destination-endpoint-served"
SUBSET = "x-gateway-destination-endpoint-subset"
NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX = range(5)
SECONDS = 20
OVERWRITE = (0, 2, 3)  # append_action: values that a client's header can't be told apart from fail


def _compile():
    """The two .proto files as modules, made anew for each run."""
    folder = tempfile.mkdtemp(prefix="epp-conformance-")
    include = str(Path(grpc.__file__).parent.parent / "grpc_tools" / "_proto")
    for name in ("ext_proc", "health"):
        code = protoc.main(
            ["", f"-I{HERE}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
            + [f"{HERE}/{name}.proto"]
        )
        if code != 0:
            raise RuntimeError(f"{name}.proto could not be compiled")
    sys.path.insert(0, folder)
    names = ("ext_proc_pb2", "ext_proc_pb2_grpc", "health_pb2", "health_pb2_grpc")
    return [importlib.import_module(n) for n in names]


pb, pb_grpc, health_pb, health_grpc = _compile()


def connect(address, tls=False):
    options = [
        ("grpc.max_receive_message_length", 64 << 20),
        ("grpc.max_send_message_length", 64 << 20),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not tls:
        return grpc.insecure_channel(address, options)
    # Pickers have certificates of their own making: what they prove is not looked at here.
    import ssl

    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host.strip("[]"), int(port))).encode()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(pem), options)


class Ended(Exception):
    """The stream is over: its status, None where it ended well."""

    def __init__(self, code, details=""):
        super().__init__(f"the stream ended with {code}: {details}")
        self.code = code


class Silent(Exception):
    """Nothing came in time."""


class Stream:
    """One request on its way through a picker."""

    def __init__(self, channel):
        self._out = queue.Queue()
        self._in = queue.Queue()
        self._call = pb_grpc.ExternalProcessorStub(channel).Process(iter(self._out.get, None))
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self):
        try:
            for message in self._call:
                self._in.put(message)
            self._in.put(Ended(None))
        except grpc.RpcError as e:
            self._in.put(Ended(e.code(), e.details()))

    def send(self, **fields):
        self._out.put(pb.ProcessingRequest(**fields))

    def receive(self, seconds=SECONDS):
        try:
            message = self._in.get(timeout=seconds)
        except queue.Empty:
            raise Silent(f"nothing came within {seconds} s") from None
        if isinstance(message, Ended):
            self._in.put(message)
            raise message
        return message

    def close(self):
        """The proxy has nothing more to say."""
        self._out.put(None)

    def cancel(self):
        """The client left."""
        self._call.cancel()
        self._out.put(None)


def header_map(headers):
    return pb.HeaderMap(
        headers=[
            pb.HeaderValue(key=k, raw_value=v if isinstance(v, bytes) else v.encode())
            for k, v in headers
        ]
    )


def metadata(namespace, values):
    out = pb.Metadata()
    out.filter_metadata[namespace].update(values)
    return out


def subset_of(endpoints):
    return metadata("envoy.lb.subset_hint", {SUBSET: endpoints})
