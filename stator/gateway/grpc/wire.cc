#include "stator/gateway/grpc/wire.h"

#if STATOR_HAVE_GRPC

#include <utility>

namespace stator::gateway {
namespace {

namespace ep = envoy::service::ext_proc::v3;

void take_headers(ep::HeaderMap& map, std::vector<Header>& out) {
    out.reserve(static_cast<std::size_t>(map.headers_size()));
    for (ep::HeaderValue& h : *map.mutable_headers()) {
        std::string& value = h.raw_value().empty() ? *h.mutable_value() : *h.mutable_raw_value();
        out.push_back({std::move(*h.mutable_key()), std::move(value)});
    }
}

void take_body(ep::HttpBody& body, FromProxy& out) {
    out.body = std::move(*body.mutable_body());
    out.end_of_stream = body.end_of_stream();
}

const google::protobuf::Value* find(const ep::Metadata& metadata, std::string_view name_space,
                                    std::string_view key) {
    const auto in = metadata.filter_metadata().find(std::string(name_space));
    if (in == metadata.filter_metadata().end()) return nullptr;
    const auto at = in->second.fields().find(std::string(key));
    return at == in->second.fields().end() ? nullptr : &at->second;
}

/// A list; what is none allows nothing.
std::vector<std::string> subset_of(const google::protobuf::Value& value) {
    std::vector<std::string> out;
    for (const auto& one : value.list_value().values()) {
        if (!one.string_value().empty()) out.push_back(one.string_value());
    }
    return out;
}

BodyMode mode_of(std::int32_t n) {
    constexpr auto kLast = static_cast<std::int32_t>(BodyMode::kFullDuplex);
    return n < 0 || n > kLast ? BodyMode::kNone : static_cast<BodyMode>(n);
}

void put_headers(ToProxy& message, ep::HeaderMutation& out) {
    // Overwrites, or adds where there is none: what a client sent under that name does not survive.
    constexpr std::int32_t kOverwriteOrAdd = 2;
    for (Header& h : message.set) {
        auto* set = out.add_set_headers();
        set->mutable_header()->set_key(std::move(h.name));
        set->mutable_header()->set_raw_value(std::move(h.value));
        set->set_append_action(kOverwriteOrAdd);
    }
    for (std::string& name : message.remove) out.add_remove_headers(std::move(name));
}

void put_common(ToProxy& message, ep::CommonResponse& out) {
    if (!message.set.empty() || !message.remove.empty()) {
        put_headers(message, *out.mutable_header_mutation());
    }
    out.set_clear_route_cache(message.choose_route_again);
    if (message.how == ToProxy::Body::kReplaced) {
        out.mutable_body_mutation()->set_body(std::move(message.body));
    } else if (message.how == ToProxy::Body::kPiece) {
        auto* piece = out.mutable_body_mutation()->mutable_streamed_response();
        piece->set_body(std::move(message.body));
        piece->set_end_of_stream(message.end_of_stream);
    }
}

void put_immediate(ToProxy& message, ep::ImmediateResponse& out) {
    out.mutable_status()->set_code(message.status);
    put_headers(message, *out.mutable_headers());
    out.set_body(std::move(message.body));
    out.set_details(std::move(message.details));
}

}  // namespace

FromProxy from_wire(ep::ProcessingRequest& request) {
    using Kind = FromProxy::Kind;
    FromProxy out;
    switch (request.request_case()) {
        case ep::ProcessingRequest::kRequestHeaders:
            out.kind = Kind::kRequestHeaders;
            out.end_of_stream = request.request_headers().end_of_stream();
            take_headers(*request.mutable_request_headers()->mutable_headers(), out.headers);
            break;
        case ep::ProcessingRequest::kResponseHeaders:
            out.kind = Kind::kResponseHeaders;
            out.end_of_stream = request.response_headers().end_of_stream();
            take_headers(*request.mutable_response_headers()->mutable_headers(), out.headers);
            break;
        case ep::ProcessingRequest::kRequestBody:
            out.kind = Kind::kRequestBody;
            take_body(*request.mutable_request_body(), out);
            break;
        case ep::ProcessingRequest::kResponseBody:
            out.kind = Kind::kResponseBody;
            take_body(*request.mutable_response_body(), out);
            break;
        case ep::ProcessingRequest::kRequestTrailers:
            out.kind = Kind::kRequestTrailers;
            break;
        case ep::ProcessingRequest::kResponseTrailers:
            out.kind = Kind::kResponseTrailers;
            break;
        case ep::ProcessingRequest::REQUEST_NOT_SET:
            break;
    }
    if (request.has_metadata_context()) {
        const auto& metadata = request.metadata_context();
        if (const auto* subset = find(metadata, kSubsetHint, kSubset)) {
            out.subset = subset_of(*subset);
        }
        if (const auto* served = find(metadata, kEnvoyLb, kServed)) {
            out.served = served->string_value();
        }
    }
    if (request.has_protocol_config()) {
        out.modes = FromProxy::Modes{mode_of(request.protocol_config().request_body_mode()),
                                     mode_of(request.protocol_config().response_body_mode())};
    }
    out.only_observed = request.observability_mode();
    return out;
}

void to_wire(ToProxy& message, ep::ProcessingResponse& out) {
    switch (message.kind) {
        case ToProxy::Kind::kRequestHeaders:
            put_common(message, *out.mutable_request_headers()->mutable_response());
            break;
        case ToProxy::Kind::kResponseHeaders:
            put_common(message, *out.mutable_response_headers()->mutable_response());
            break;
        case ToProxy::Kind::kRequestBody:
            put_common(message, *out.mutable_request_body()->mutable_response());
            break;
        case ToProxy::Kind::kResponseBody:
            put_common(message, *out.mutable_response_body()->mutable_response());
            break;
        case ToProxy::Kind::kRequestTrailers:
            out.mutable_request_trailers();
            break;
        case ToProxy::Kind::kResponseTrailers:
            out.mutable_response_trailers();
            break;
        case ToProxy::Kind::kImmediate:
            put_immediate(message, *out.mutable_immediate_response());
            break;
    }
    if (message.destination.empty()) return;
    auto& lb = (*out.mutable_dynamic_metadata()->mutable_fields())[std::string(kEnvoyLb)];
    auto& fields = *lb.mutable_struct_value()->mutable_fields();
    fields[std::string(kDestination)].set_string_value(std::move(message.destination));
}

}  // namespace stator::gateway

#endif
