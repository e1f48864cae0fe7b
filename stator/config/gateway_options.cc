#include "stator/config/option_table.h"

namespace stator::config::table {

void add_gateway_options(std::vector<Option>& t) {
    using S = Settings;
    using G = GatewaySettings;
    t.push_back(option<&S::gateway, &G::listen>(
                    "gateway.listen", "--gateway-listen",
                    "HOST:PORT where gateways ask over gRPC (ext_proc), and for its health.")
                    .in("address"));
    t.push_back(option<&S::gateway, &G::target_port>(
                    "gateway.target_port", "--gateway-target-port",
                    "Port of the model server in the pod of each worker. Needed for workers "
                    "without a label http=HOST:PORT. 0: those are never picked.")
                    .range(0, 65'535));
    t.push_back(option<&S::gateway, &G::fallbacks>(
                    "gateway.fallbacks", "--gateway-fallbacks",
                    "Further endpoints, in order, for when the first one does not answer. 0 for "
                    "proxies that take exactly one (Envoy's ORIGINAL_DST).")
                    .range(0, 3)
                    .in("endpoints"));
    t.push_back(option<&S::gateway, &G::hints>(
        "gateway.hints", "--gateway-hints",
        "Tell the chosen worker to frontends in the pods, Stator's or NVIDIA Dynamo's, by headers "
        "that they honour."));
    t.push_back(option<&S::gateway, &G::objectives>(
                    "gateway.objectives", "--gateway-objective",
                    "NAME=PRIORITY of the objective that a request names in "
                    "x-llm-d-inference-objective. Below 0 it is dropped where it would wait.")
                    .in("objective"));
    t.push_back(option<&S::gateway, &G::request_bodies>(
        "gateway.request_bodies", "--gateway-request-bodies",
        "How gateways send requests' bodies, those that do not say it themselves."));
    t.push_back(option<&S::gateway, &G::response_bodies>(
        "gateway.response_bodies", "--gateway-response-bodies", "The same of answers' bodies."));
    t.push_back(option<&S::gateway, &G::drain>(
                    "gateway.drain", "--gateway-drain",
                    "At the end: how long it says that it is not ready and still answers, so that "
                    "gateways notice.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::gateway, &G::certificate_file>(
                    "gateway.certificate_file", "--gateway-certificate-file",
                    "PEM file of the certificate that gateways see. If empty: no TLS.")
                    .in("file"));
    t.push_back(option<&S::gateway, &G::key_file>("gateway.key_file", "--gateway-key-file",
                                                  "PEM file of its key.")
                    .in("file"));
}

}  // namespace stator::config::table
