#include "stator/frontend/route_hints.h"

#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/tokens/hash.h"

namespace stator::frontend {
namespace {

/// The first of two names that the request has a header of.
std::string_view either(const net::HttpRequest& request, std::string_view ours,
                        std::string_view theirs) {
    const std::string_view value = request.header(ours);
    return value.empty() ? request.header(theirs) : value;
}

Error wrong(std::string_view header, std::string_view value, std::string_view expected) {
    Error e = error(ErrorCode::kInvalidArgument, "the header {} is '{}'; it must be {}", header,
                    value.substr(0, kMaxHintBytes), expected)
                  .value();
    e.param = std::string(header);
    return e;
}

template <typename T>
Result<std::optional<T>> number(std::string_view header, std::string_view value, T min, T max) {
    if (value.empty()) return std::optional<T>();
    T n = 0;
    const auto [end, failed] = std::from_chars(value.data(), value.data() + value.size(), n);
    if (failed != std::errc{} || end != value.data() + value.size() || n < min || n > max) {
        return tl::unexpected(
            wrong(header, value, fmt::format("a whole number from {} to {}", min, max)));
    }
    return std::optional<T>(n);
}

Result<bool> flag(std::string_view header, std::string_view value) {
    if (value.empty() || value == "0" || value == "false") return false;
    if (value == "1" || value == "true") return true;
    return tl::unexpected(wrong(header, value, "1 or 0"));
}

Result<std::string> word(std::string_view header, std::string_view value) {
    if (value.size() > kMaxHintBytes) {
        return tl::unexpected(
            wrong(header, value, fmt::format("at most {} characters", kMaxHintBytes)));
    }
    return std::string(value);
}

Result<std::vector<std::string>> words(std::string_view header, std::string_view value) {
    std::vector<std::string> out;
    while (!value.empty()) {
        const auto comma = std::min(value.find(','), value.size());
        std::string_view one = value.substr(0, comma);
        value.remove_prefix(std::min(comma + 1, value.size()));
        while (one.starts_with(' ')) one.remove_prefix(1);
        while (one.ends_with(' ')) one.remove_suffix(1);
        if (one.empty()) continue;
        if (one.size() > kMaxHintBytes || out.size() == kMaxHintLabels) {
            return tl::unexpected(wrong(
                header, value,
                fmt::format("at most {} words of {} characters", kMaxHintLabels, kMaxHintBytes)));
        }
        out.emplace_back(one);
    }
    return out;
}

/// Only trusted callers' ones.
Result<void> read_trusted(const net::HttpRequest& request, const BodyHints& body, RequestHints& out,
                          protocol::RouteHints& hints) {
    auto worker =
        word("x-stator-worker", either(request, "x-stator-worker", "x-dynamo-worker-instance-id"));
    if (!worker) return tl::unexpected(std::move(worker.error()));
    hints.worker = worker->empty() ? body.worker : std::move(*worker);
    const auto rank = number<std::uint32_t>(
        "x-stator-rank", either(request, "x-stator-rank", "x-dynamo-dp-rank"), 0, kMaxHintRank);
    if (!rank) return tl::unexpected(rank.error());
    hints.rank = *rank ? *rank : body.rank;
    const auto advice = flag("x-stator-advice", request.header("x-stator-advice"));
    if (!advice) return tl::unexpected(advice.error());
    hints.advised = *advice;
    if (hints.rank && hints.worker.empty()) {
        Error e = error(ErrorCode::kInvalidArgument,
                        "rank {} is asked for without a worker: name it with x-stator-worker",
                        *hints.rank)
                      .value();
        e.param = "x-stator-rank";
        return tl::unexpected(std::move(e));
    }
    const auto priority = number<std::int32_t>(
        "x-stator-priority", either(request, "x-stator-priority", "x-dynamo-request-priority"),
        std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max());
    if (!priority) return tl::unexpected(priority.error());
    const auto strict = number<std::int32_t>("x-dynamo-request-strict-priority",
                                             request.header("x-dynamo-request-strict-priority"), 0,
                                             std::numeric_limits<std::int32_t>::max());
    if (!strict) return tl::unexpected(strict.error());
    out.priority =
        strict->value_or(0) != 0 ? **strict : priority->value_or(body.priority.value_or(0));
    auto tenant = word("x-stator-tenant", request.header("x-stator-tenant"));
    if (!tenant) return tl::unexpected(std::move(tenant.error()));
    out.tenant = std::move(*tenant);
    auto required = words("x-stator-require", request.header("x-stator-require"));
    if (!required) return tl::unexpected(std::move(required.error()));
    hints.required_labels = std::move(*required);
    auto preferred = words("x-stator-prefer", request.header("x-stator-prefer"));
    if (!preferred) return tl::unexpected(std::move(preferred.error()));
    hints.preferred_labels = std::move(*preferred);
    auto tolerated = words("x-stator-tolerate", request.header("x-stator-tolerate"));
    if (!tolerated) return tl::unexpected(std::move(tolerated.error()));
    hints.tolerated_taints = std::move(*tolerated);
    const auto output = number<std::uint32_t>(
        "x-stator-expected-output", request.header("x-stator-expected-output"), 1, kMaxHintOutput);
    if (!output) return tl::unexpected(output.error());
    hints.expected_output_tokens = output->value_or(body.expected_output_tokens);
    const auto explain = flag("x-stator-explain", request.header("x-stator-explain"));
    if (!explain) return tl::unexpected(explain.error());
    hints.explain = *explain;
    return {};
}

bool says_anything(const protocol::RouteHints& h) {
    return !h.session.empty() || !h.worker.empty() || !h.required_labels.empty() ||
           !h.preferred_labels.empty() || !h.tolerated_taints.empty() ||
           h.expected_output_tokens != 0 || h.explain;
}

/// Equal in all frontends and over restarts.
std::uint64_t salt_of(std::string_view tenant, std::string_view salt) {
    if (tenant.empty() && salt.empty()) return 0;
    const std::uint64_t n = tokens::hash_seed(tenant, salt);
    return n == 0 ? 1 : n;
}

}  // namespace

bool is_local_peer(std::string_view peer) {
    return peer.starts_with("127.") || peer.starts_with("::1") || peer.starts_with("[::1]") ||
           peer.starts_with("unix") || peer.starts_with("::ffff:127.");
}

Result<RequestHints> read_route_hints(const net::HttpRequest& request, const BodyHints& body,
                                      bool trusted) {
    RequestHints out;
    protocol::RouteHints hints;
    auto session =
        word("x-stator-session", either(request, "x-stator-session", "x-dynamo-session-id"));
    if (!session) return tl::unexpected(std::move(session.error()));
    hints.session = session->empty() ? body.session : std::move(*session);
    const auto tenant = word("x-tenant-id", request.header("x-tenant-id"));
    if (!tenant) return tl::unexpected(tenant.error());
    out.cache_salt = salt_of(*tenant, body.cache_salt);
    const auto hard = flag("x-stator-session-hard", request.header("x-stator-session-hard"));
    if (!hard) return tl::unexpected(hard.error());
    hints.session_hard = *hard && trusted;
    if (trusted) {
        if (auto ok = read_trusted(request, body, out, hints); !ok) {
            return tl::unexpected(ok.error());
        }
        if (out.tenant.empty()) out.tenant = *tenant;
    }
    if (says_anything(hints)) out.hints = std::make_shared<protocol::RouteHints>(std::move(hints));
    return out;
}

}  // namespace stator::frontend
