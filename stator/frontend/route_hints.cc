#include "stator/frontend/route_hints.h"

#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace stator::frontend {
namespace {

constexpr std::size_t kMaxWord = 256;
constexpr std::size_t kMaxLabels = 16;

/// The first of two names that the request has a header of.
std::string_view either(const net::HttpRequest& request, std::string_view ours,
                        std::string_view theirs) {
    const std::string_view value = request.header(ours);
    return value.empty() ? request.header(theirs) : value;
}

Error wrong(std::string_view header, std::string_view value, std::string_view expected) {
    Error e = error(ErrorCode::kInvalidArgument, "the header {} is '{}'; it must be {}", header,
                    value.substr(0, kMaxWord), expected)
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
    if (value.size() > kMaxWord) {
        return tl::unexpected(wrong(header, value, fmt::format("at most {} characters", kMaxWord)));
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
        if (one.size() > kMaxWord || out.size() == kMaxLabels) {
            return tl::unexpected(
                wrong(header, value,
                      fmt::format("at most {} words of {} characters", kMaxLabels, kMaxWord)));
        }
        out.emplace_back(one);
    }
    return out;
}

/// Only trusted callers' ones.
Result<void> read_trusted(const net::HttpRequest& request, HintsOfHeaders& out,
                          protocol::RouteHints& hints, bool& any) {
    auto worker =
        word("x-stator-worker", either(request, "x-stator-worker", "x-dynamo-worker-instance-id"));
    if (!worker) return tl::unexpected(std::move(worker.error()));
    hints.worker = std::move(*worker);
    constexpr std::uint32_t kMaxRank = 65'535;
    const auto rank = number<std::uint32_t>(
        "x-stator-rank", either(request, "x-stator-rank", "x-dynamo-dp-rank"), 0, kMaxRank);
    if (!rank) return tl::unexpected(rank.error());
    hints.rank = *rank;
    const auto priority = number<std::int32_t>(
        "x-stator-priority", either(request, "x-stator-priority", "x-dynamo-request-priority"),
        std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max());
    if (!priority) return tl::unexpected(priority.error());
    out.priority = priority->value_or(0);
    auto tenant = word("x-stator-tenant", request.header("x-stator-tenant"));
    if (!tenant) return tl::unexpected(std::move(tenant.error()));
    out.tenant = std::move(*tenant);
    auto required = words("x-stator-require", request.header("x-stator-require"));
    if (!required) return tl::unexpected(std::move(required.error()));
    hints.required_labels = std::move(*required);
    auto tolerated = words("x-stator-tolerate", request.header("x-stator-tolerate"));
    if (!tolerated) return tl::unexpected(std::move(tolerated.error()));
    hints.tolerated_taints = std::move(*tolerated);
    const auto output = number<std::uint32_t>(
        "x-stator-expected-output", request.header("x-stator-expected-output"), 1, 10'000'000);
    if (!output) return tl::unexpected(output.error());
    hints.expected_output_tokens = output->value_or(0);
    const auto explain = flag("x-stator-explain", request.header("x-stator-explain"));
    if (!explain) return tl::unexpected(explain.error());
    hints.explain = *explain;
    any = any || !hints.worker.empty() || hints.rank || !hints.required_labels.empty() ||
          !hints.tolerated_taints.empty() || hints.expected_output_tokens != 0 || hints.explain;
    return {};
}

}  // namespace

bool is_local_peer(std::string_view peer) {
    return peer.starts_with("127.") || peer.starts_with("::1") || peer.starts_with("[::1]") ||
           peer.starts_with("unix") || peer.starts_with("::ffff:127.");
}

Result<HintsOfHeaders> read_route_hints(const net::HttpRequest& request, bool trusted) {
    HintsOfHeaders out;
    protocol::RouteHints hints;
    auto session =
        word("x-stator-session", either(request, "x-stator-session", "x-dynamo-session-id"));
    if (!session) return tl::unexpected(std::move(session.error()));
    hints.session = std::move(*session);
    const auto hard = flag("x-stator-session-hard", request.header("x-stator-session-hard"));
    if (!hard) return tl::unexpected(hard.error());
    hints.session_hard = *hard && trusted;
    bool any = !hints.session.empty();
    if (trusted) {
        if (auto ok = read_trusted(request, out, hints, any); !ok)
            return tl::unexpected(ok.error());
    }
    if (any) out.hints = std::make_shared<protocol::RouteHints>(std::move(hints));
    return out;
}

}  // namespace stator::frontend
