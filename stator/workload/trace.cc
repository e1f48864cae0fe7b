#include "stator/workload/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <numeric>

#include "stator/codec/json.h"
#include "stator/config/value.h"

namespace stator::workload {
namespace {

using Line = std::function<Result<void>(std::string_view)>;

/// Calls `read` for every line that is not empty; numbers its errors, passes over bad lines where
/// that is wanted.
Result<void> each_line(std::string_view text, std::string_view what, BadLines& bad,
                       const Line& read) {
    if (text.size() > kMaxTraceBytes) {
        return error(ErrorCode::kTooLarge, "the {} has {} bytes; at most {} are read", what,
                     text.size(), kMaxTraceBytes);
    }
    std::uint64_t number = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        ++number;
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty()) continue;
        Result<void> done;
        if (line.size() > kMaxTraceLine) {
            done = error(ErrorCode::kTooLarge, "it has {} bytes; at most {} are read", line.size(),
                         kMaxTraceLine);
        } else {
            done = read(line);
        }
        if (done) continue;
        std::string message =
            fmt::format("line {} of the {}: {}", number, what, done.error().message);
        if (!bad.skip) return error(ErrorCode::kInvalidArgument, "{}", message);
        if (bad.skipped.count++ == 0) bad.skipped.first = std::move(message);
    }
    return {};
}

Result<std::uint32_t> tokens_of(codec::JsonView object, std::string_view key, std::uint32_t min) {
    const codec::JsonView field = object.find(key);
    if (!field.present()) return error(ErrorCode::kInvalidArgument, "{} is missing", key);
    const auto n = field.as_uint();
    if (!n || *n < min || *n > kMaxTokens) {
        return error(ErrorCode::kInvalidArgument, "{} must be a whole number from {} to {}", key,
                     min, kMaxTokens);
    }
    return static_cast<std::uint32_t>(*n);
}

Result<void> read_mooncake_line(codec::JsonDocument& json, std::string_view line, Trace& trace) {
    const auto object = json.parse(line);
    if (!object) return tl::unexpected(object.error());
    if (object->type() != codec::JsonType::kObject) {
        return error(ErrorCode::kInvalidArgument, "it must be a JSON object");
    }
    const auto at = object->find("timestamp").as_double();
    if (!at || !std::isfinite(*at) || *at < 0) {
        return error(ErrorCode::kInvalidArgument, "timestamp must be a number of milliseconds");
    }
    const auto input = tokens_of(*object, "input_length", 1);
    if (!input) return tl::unexpected(input.error());
    const auto output = tokens_of(*object, "output_length", 1);
    if (!output) return tl::unexpected(output.error());
    const codec::JsonView ids = object->find("hash_ids");
    const std::uint32_t blocks = (*input + kMooncakeBlockTokens - 1) / kMooncakeBlockTokens;
    if (ids.type() != codec::JsonType::kArray || ids.size() < blocks) {
        return error(ErrorCode::kInvalidArgument,
                     "hash_ids must be a list with an id for each {} tokens: {} ids for {} tokens, "
                     "there are {}",
                     kMooncakeBlockTokens, blocks, *input, ids.size());
    }
    const std::size_t first = trace.blocks.size();
    bool whole = true;
    ids.each_element([&](std::size_t i, codec::JsonView id) {
        const auto n = id.as_uint();
        whole = n.has_value();
        if (whole && i < blocks) trace.blocks.push_back(*n);
        return whole && i + 1 < blocks;
    });
    if (!whole) {
        trace.blocks.resize(first);
        return error(ErrorCode::kInvalidArgument, "hash_ids must be whole numbers, 0 or more");
    }
    trace.requests.push_back(
        {*at * 1e-3, *input, *output, static_cast<std::uint32_t>(first), blocks});
    return {};
}

/// Takes a number of digits off the front.
bool take_number(std::string_view& text, std::size_t digits, std::int64_t& value) {
    if (text.size() < digits) return false;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + digits, value);
    if (failed != std::errc{} || end != text.data() + digits || value < 0) return false;
    text.remove_prefix(digits);
    return true;
}

bool take(std::string_view& text, char c) {
    if (!text.starts_with(c)) return false;
    text.remove_prefix(1);
    return true;
}

/// Seconds since 1970 of "2023-11-16 18:17:03.9799600", as if it were UTC.
std::optional<double> parse_time(std::string_view t) {
    std::int64_t year = 0;
    std::int64_t month = 0;
    std::int64_t day = 0;
    std::int64_t hour = 0;
    std::int64_t minute = 0;
    std::int64_t second = 0;
    const bool whole = take_number(t, 4, year) && take(t, '-') && take_number(t, 2, month) &&
                       take(t, '-') && take_number(t, 2, day) && (take(t, ' ') || take(t, 'T')) &&
                       take_number(t, 2, hour) && take(t, ':') && take_number(t, 2, minute) &&
                       take(t, ':') && take_number(t, 2, second);
    if (!whole || hour > 23 || minute > 59 || second > 60) return std::nullopt;
    double fraction = 0;
    if (take(t, '.')) {
        double unit = 0.1;
        while (!t.empty() && t.front() >= '0' && t.front() <= '9') {
            fraction += unit * (t.front() - '0');
            unit *= 0.1;
            t.remove_prefix(1);
        }
    }
    if (!t.empty() && t != "Z" && t != "+00:00") return std::nullopt;
    const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(year)),
                                           std::chrono::month(static_cast<unsigned>(month)),
                                           std::chrono::day(static_cast<unsigned>(day))};
    if (!date.ok()) return std::nullopt;
    const auto days = std::chrono::sys_days(date).time_since_epoch().count();
    return static_cast<double>(days) * 86'400.0 +
           static_cast<double>(hour * 3600 + minute * 60 + second) + fraction;
}

Result<void> read_azure_line(std::string_view line, Trace& trace) {
    std::array<std::string_view, 3> fields;
    std::size_t n = 0;
    for (std::string_view rest = line; n < 3; ++n) {
        const std::size_t comma = rest.find(',');
        fields[n] = rest.substr(0, comma);
        if (comma == std::string_view::npos) break;
        rest.remove_prefix(comma + 1);
    }
    if (n != 2) {
        return error(ErrorCode::kInvalidArgument,
                     "it must have three fields: TIMESTAMP,ContextTokens,GeneratedTokens");
    }
    const auto at = parse_time(fields[0]);
    if (!at) {
        return error(ErrorCode::kInvalidArgument,
                     "{} is no time such as 2023-11-16 18:17:03.9799600",
                     config::in_quotes(fields[0]));
    }
    std::array<std::uint32_t, 2> counts{};
    for (std::size_t i = 0; i < 2; ++i) {
        const std::string_view f = fields[i + 1];
        const auto [end, failed] = std::from_chars(f.data(), f.data() + f.size(), counts[i]);
        if (failed != std::errc{} || end != f.data() + f.size() || counts[i] == 0 ||
            counts[i] > kMaxTokens) {
            return error(ErrorCode::kInvalidArgument, "{} is no number of tokens from 1 to {}",
                         config::in_quotes(f), kMaxTokens);
        }
    }
    trace.requests.push_back({*at, counts[0], counts[1], 0, 0});
    return {};
}

constexpr double kDay_s = 86'400;
constexpr double kMaxTraceSpan_s = 3660 * kDay_s;

Result<Trace> in_order(Trace trace, std::string_view what) {
    if (trace.requests.empty()) {
        return error(ErrorCode::kInvalidArgument, "the {} has no requests", what);
    }
    if (!std::ranges::is_sorted(trace.requests, {}, &Trace::Request::start_s)) {
        // Stable: requests of one moment keep their order.
        std::vector<std::size_t> order(trace.requests.size());
        std::iota(order.begin(), order.end(), 0);
        std::ranges::sort(order, {},
                          [&](std::size_t i) { return std::pair(trace.requests[i].start_s, i); });
        std::vector<Trace::Request> sorted;
        sorted.reserve(order.size());
        for (const std::size_t i : order) sorted.push_back(trace.requests[i]);
        trace.requests = std::move(sorted);
    }
    const double first = trace.requests.front().start_s;
    const double span_s = trace.requests.back().start_s - first;
    if (!(span_s <= kMaxTraceSpan_s)) {
        return error(ErrorCode::kInvalidArgument,
                     "the {} goes over {:.3g} days; at most {:.0f} are taken, so some of its times "
                     "must be wrong",
                     what, span_s / kDay_s, kMaxTraceSpan_s / kDay_s);
    }
    for (Trace::Request& r : trace.requests) r.start_s -= first;
    return trace;
}

Result<void> read_prompt_line(codec::JsonDocument& json, std::string_view line,
                              std::vector<Prompt>& prompts) {
    Prompt prompt;
    if (!line.starts_with('{')) {
        prompt.text = line;
        prompts.push_back(std::move(prompt));
        return {};
    }
    const auto object = json.parse(line);
    if (!object) return tl::unexpected(object.error());
    if (const auto text = object->find("prompt").as_string()) {
        prompt.text = *text;
    } else if (object->find("messages").type() == codec::JsonType::kArray) {
        object->find("messages").write_to(prompt.messages);
    } else {
        return error(ErrorCode::kInvalidArgument,
                     "it must have \"prompt\" (text) or \"messages\" (a list)");
    }
    if (object->find("output_tokens").present()) {
        const auto output = tokens_of(*object, "output_tokens", 1);
        if (!output) return tl::unexpected(output.error());
        prompt.output_tokens = *output;
    }
    prompts.push_back(std::move(prompt));
    return {};
}

}  // namespace

Result<Trace> read_mooncake(std::string_view text, BadLines& bad) {
    Trace trace;
    codec::JsonDocument json;
    auto done = each_line(text, "trace", bad, [&](std::string_view line) {
        return read_mooncake_line(json, line, trace);
    });
    if (!done) return tl::unexpected(done.error());
    return in_order(std::move(trace), "trace");
}

Result<Trace> read_azure(std::string_view text, BadLines& bad) {
    Trace trace;
    bool first = true;
    auto done = each_line(text, "trace", bad, [&](std::string_view line) -> Result<void> {
        const bool header = first && line.starts_with("TIMESTAMP");
        first = false;
        return header ? Result<void>() : read_azure_line(line, trace);
    });
    if (!done) return tl::unexpected(done.error());
    return in_order(std::move(trace), "trace");
}

Result<std::vector<Prompt>> read_prompts(std::string_view text, BadLines& bad) {
    std::vector<Prompt> prompts;
    codec::JsonDocument json;
    auto done = each_line(text, "file of prompts", bad, [&](std::string_view line) {
        return read_prompt_line(json, line, prompts);
    });
    if (!done) return tl::unexpected(done.error());
    if (prompts.empty()) {
        return error(ErrorCode::kInvalidArgument, "the file of prompts has none");
    }
    return prompts;
}

}  // namespace stator::workload
