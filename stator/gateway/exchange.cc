#include "stator/gateway/exchange.h"

#include <algorithm>
#include <utility>

#include "stator/frontend/error_mapping.h"
#include "stator/gateway/system_headers.h"

namespace stator::gateway {
namespace {

using Kind = ToProxy::Kind;

tl::unexpected<Error> broken(std::string_view what) {
    return error(ErrorCode::kInvalidArgument, "the proxy breaks the protocol: {}", what);
}

std::string_view name_of(FromProxy::Kind kind) {
    switch (kind) {
        case FromProxy::Kind::kRequestHeaders:
            return "request headers";
        case FromProxy::Kind::kRequestBody:
            return "a request body";
        case FromProxy::Kind::kRequestTrailers:
            return "request trailers";
        case FromProxy::Kind::kResponseHeaders:
            return "response headers";
        case FromProxy::Kind::kResponseBody:
            return "a response body";
        case FromProxy::Kind::kResponseTrailers:
            return "response trailers";
        case FromProxy::Kind::kUnknown:
            break;
    }
    return "something unknown";
}

std::string joined(const std::vector<std::string>& endpoints) {
    std::string out;
    for (const std::string& e : endpoints) {
        if (!out.empty()) out += ',';
        out += e;
    }
    return out;
}

}  // namespace

std::string_view header_of(const std::vector<Header>& headers, std::string_view name) {
    const auto at = std::ranges::find(headers, name, &Header::name);
    return at == headers.end() ? std::string_view() : std::string_view(at->value);
}

Exchange::Exchange(const ExchangeOptions& options, Picker& picker, BodyBudget& budget)
    : options_(options), picker_(picker), budget_(budget), modes_(options.modes) {}

Exchange::~Exchange() { forget_body(); }

Result<void> Exchange::take(FromProxy message, std::vector<ToProxy>& out) {
    if (answered_) return {};  // what was under way when the client got its answer
    switch (message.kind) {
        case FromProxy::Kind::kUnknown:
            return broken("a message that is none of the six");
        case FromProxy::Kind::kRequestHeaders:
        case FromProxy::Kind::kRequestBody:
        case FromProxy::Kind::kRequestTrailers:
            return take_request(message, out);
        case FromProxy::Kind::kResponseHeaders:
        case FromProxy::Kind::kResponseBody:
        case FromProxy::Kind::kResponseTrailers:
            break;
    }
    return take_response(message, out);
}

Result<void> Exchange::take_request(FromProxy& message, std::vector<ToProxy>& out) {
    const bool is_headers = message.kind == FromProxy::Kind::kRequestHeaders;
    if (is_headers != (request_ == Side::kBefore) || request_ == Side::kDone) {
        return broken(fmt::format("{} come where they can't", name_of(message.kind)));
    }
    if (message.subset) subset_ = std::move(message.subset);
    if (is_headers) {
        if (message.modes) modes_ = *message.modes;
        only_observed_ = message.only_observed;
        headers_ = std::move(message.headers);
        request_ = message.end_of_stream ? Side::kDone : Side::kHeaders;
        if (!only_observed_) begin(message, out);
        return {};
    }
    const bool is_trailers = message.kind == FromProxy::Kind::kRequestTrailers;
    request_ = message.end_of_stream || is_trailers ? Side::kDone : Side::kBody;
    if (only_observed_) return {};
    if (!is_trailers) {
        take_body(message, out);
        return {};
    }
    if (modes_.request == BodyMode::kFullDuplex && !pick_) {
        if (!pick(out)) return {};
        headers_on(Kind::kRequestHeaders, out);
        pieces_on(false, out);
    }
    out.push_back({.kind = Kind::kRequestTrailers, .set = {}, .remove = {}});
    return {};
}

void Exchange::begin(FromProxy& message, std::vector<ToProxy>& out) {
    const bool body_comes = !message.end_of_stream && modes_.request != BodyMode::kNone;
    if (body_comes && modes_.request == BodyMode::kFullDuplex) return;  // answered with the body
    if (body_comes && modes_.request != BodyMode::kStreamed) {
        // The body comes after this answer, and what is told then still changes the headers.
        out.push_back({.kind = Kind::kRequestHeaders, .set = {}, .remove = {}});
        return;
    }
    if (pick(out)) headers_on(Kind::kRequestHeaders, out);
}

void Exchange::take_body(FromProxy& message, std::vector<ToProxy>& out) {
    switch (modes_.request) {
        case BodyMode::kFullDuplex: {
            if (!keep(message.body, out) || !message.end_of_stream || !pick(out)) return;
            headers_on(Kind::kRequestHeaders, out);
            pieces_on(true, out);
            return;
        }
        case BodyMode::kBuffered:
        case BodyMode::kBufferedPartial: {
            if (pick_) {  // a second one: nothing is left to say
                out.push_back({.kind = Kind::kRequestBody, .set = {}, .remove = {}});
                return;
            }
            if (!keep(message.body, out) || !pick(out)) return;
            headers_on(Kind::kRequestBody, out);
            if (pick_->body) {
                out.back().how = ToProxy::Body::kReplaced;
                out.back().body = std::move(*pick_->body);
            }
            forget_body();
            return;
        }
        case BodyMode::kStreamed:
        case BodyMode::kNone:
            out.push_back({.kind = Kind::kRequestBody, .set = {}, .remove = {}});
            return;
    }
}

/// False: it was too much, and the client has been told so.
bool Exchange::keep(std::string_view piece, std::vector<ToProxy>& out) {
    if (piece.size() > options_.max_body_bytes - body_.size()) {
        constexpr int kTooLarge = 413;
        refuse(kTooLarge, "",
               error(ErrorCode::kInvalidArgument, "the body has more than {} bytes",
                     options_.max_body_bytes)
                   .value(),
               out);
        return false;
    }
    if (!budget_.take(piece.size())) {
        refuse(error(ErrorCode::kOverloaded,
                     "the bodies of other requests fill the memory for them; try again soon")
                   .value(),
               out);
        return false;
    }
    counted_ += piece.size();
    body_ += piece;
    return true;
}

bool Exchange::pick(std::vector<ToProxy>& out) {
    auto picked = picker_.pick({headers_, body_, subset_ ? &*subset_ : nullptr});
    if (!picked) {
        refuse(picked.error(), out);
        return false;
    }
    pick_ = std::move(*picked);
    if (pick_->asked_model != pick_->served_model) {
        renamer_.emplace(pick_->served_model, pick_->asked_model);
    }
    return true;
}

/// The pick, in what answers headers or a buffered body.
void Exchange::headers_on(ToProxy::Kind kind, std::vector<ToProxy>& out) {
    ToProxy& m = out.emplace_back();
    m.kind = kind;
    m.destination = joined(pick_->endpoints);
    m.set.push_back({std::string(kDestination), m.destination});
    m.set.insert(m.set.end(), pick_->set.begin(), pick_->set.end());
    for (const Header& h : headers_) {
        if (!is_system_header(h.name)) continue;
        if (std::ranges::find(m.set, h.name, &Header::name) != m.set.end()) continue;
        if (std::ranges::find(m.remove, h.name) == m.remove.end()) m.remove.push_back(h.name);
    }
    m.choose_route_again = true;
}

void Exchange::pieces_on(bool end_of_stream, std::vector<ToProxy>& out) {
    const std::string& body = pick_->body ? *pick_->body : body_;
    std::size_t at = 0;
    do {
        const std::size_t bytes = std::min(options_.piece_bytes, body.size() - at);
        const bool last = at + bytes == body.size();
        if (bytes == 0 && !end_of_stream) break;
        ToProxy& m = out.emplace_back();
        m.kind = Kind::kRequestBody;
        m.how = ToProxy::Body::kPiece;
        m.body = body.substr(at, bytes);
        m.end_of_stream = last && end_of_stream;
        at += bytes;
    } while (at < body.size());
    pick_->body.reset();
    forget_body();
}

void Exchange::refuse(const Error& why, std::vector<ToProxy>& out) {
    constexpr int kTooManyRequests = 429;
    constexpr int kServiceUnavailable = 503;
    switch (why.code) {
        case ErrorCode::kOverloaded:
            return refuse(kTooManyRequests, "rejected-saturated", why, out);
        case ErrorCode::kUnavailable:
            return refuse(kServiceUnavailable, "rejected-no-endpoints", why, out);
        case ErrorCode::kDeadlineExceeded:
            return refuse(frontend::map_error(why).status, "rejected-ttl-expired", why, out);
        default:
            return refuse(frontend::map_error(why).status, "", why, out);
    }
}

void Exchange::refuse(int status, std::string_view reason, const Error& why,
                      std::vector<ToProxy>& out) {
    out.clear();  // nothing of this turn is sent before it
    ToProxy& m = out.emplace_back();
    m.kind = Kind::kImmediate;
    m.status = status;
    m.set.push_back({"content-type", "application/json"});
    if (!reason.empty()) m.set.push_back({"x-llm-d-request-dropped-reason", std::string(reason)});
    if (const auto seconds = frontend::retry_after_seconds(why, status); seconds != 0) {
        m.set.push_back({"retry-after", fmt::format("{}", seconds)});
    }
    frontend::append_error_json(m.body, why.message, frontend::map_status(status), why.param);
    m.details = reason.empty() ? std::string("refused") : std::string(reason);
    answered_ = true;
    pick_.reset();
    forget_body();
}

Result<void> Exchange::take_response(FromProxy& message, std::vector<ToProxy>& out) {
    const bool is_headers = message.kind == FromProxy::Kind::kResponseHeaders;
    if (request_ == Side::kBefore || is_headers != (response_ == Side::kBefore) ||
        response_ == Side::kDone) {
        return broken(fmt::format("{} come where they can't", name_of(message.kind)));
    }
    const bool is_trailers = message.kind == FromProxy::Kind::kResponseTrailers;
    response_ = message.end_of_stream || is_trailers ? Side::kDone
                : is_headers                         ? Side::kHeaders
                                                     : Side::kBody;
    if (only_observed_) return {};
    if (is_headers) {
        answer_headers(message, out);
    } else if (is_trailers) {
        look_at({}, true);
        if (renamer_ && modes_.response == BodyMode::kFullDuplex) {
            if (std::string rest = renamer_->finish(); !rest.empty()) {
                out.push_back({.kind = Kind::kResponseBody,
                               .set = {},
                               .remove = {},
                               .how = ToProxy::Body::kPiece,
                               .body = std::move(rest)});
            }
        }
        out.push_back({.kind = Kind::kResponseTrailers, .set = {}, .remove = {}});
    } else {
        answer_body(message, out);
    }
    return {};
}

void Exchange::answer_headers(const FromProxy& message, std::vector<ToProxy>& out) {
    if (pick_ && pick_->booking && !message.served.empty()) {
        pick_->booking->served_by(message.served);
    }
    streamed_ = header_of(message.headers, "content-type").starts_with("text/event-stream");
    if (!header_of(message.headers, "content-encoding").empty()) renamer_.reset();
    ToProxy& m = out.emplace_back();
    m.kind = Kind::kResponseHeaders;
    // What gateways' own conformance tests look for.
    m.set.push_back({"x-went-into-resp-headers", "true"});
    if (renamer_) m.remove.emplace_back("content-length");
    if (message.end_of_stream) look_at({}, true);
}

void Exchange::answer_body(FromProxy& message, std::vector<ToProxy>& out) {
    look_at(message.body, message.end_of_stream);
    ToProxy& m = out.emplace_back();
    m.kind = Kind::kResponseBody;
    m.end_of_stream = message.end_of_stream;
    const bool in_pieces = modes_.response == BodyMode::kFullDuplex;
    if (!renamer_ && !in_pieces) return;
    m.how = in_pieces ? ToProxy::Body::kPiece : ToProxy::Body::kReplaced;
    if (!renamer_) {
        m.body = std::move(message.body);
        return;
    }
    m.body = renamer_->take(message.body);
    // Only where nothing is said to follow is it certain that this is all.
    if (message.end_of_stream || modes_.response == BodyMode::kBuffered) {
        m.body += renamer_->finish();
    }
}

/// At an answer's body, for the account.
void Exchange::look_at(std::string_view piece, bool last) {
    if (!pick_ || !pick_->booking) return;
    if (!piece.empty()) {
        // An answer at once says nothing of when its first token was there.
        if (!std::exchange(first_seen_, true) && streamed_) pick_->booking->first_token();
        tail_.take(piece);
    }
    if (!last) return;
    if (const auto cached = tail_.cached_tokens()) pick_->booking->cached_told(*cached);
    pick_->booking.reset();
}

void Exchange::forget_body() {
    budget_.give_back(std::exchange(counted_, 0));
    body_.clear();
    body_.shrink_to_fit();
}

}  // namespace stator::gateway
