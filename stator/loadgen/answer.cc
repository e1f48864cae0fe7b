#include "stator/loadgen/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace stator::loadgen {
namespace {

using report::Outcome;

constexpr std::size_t kShown = 200;  // of what a server says, in a sentence

std::string_view text_of(codec::JsonView v) { return v.as_string().value_or(std::string_view{}); }

std::uint32_t count_of(codec::JsonView v) {
    // Whatever a server says: each output token will have a number of its own.
    constexpr std::uint64_t kMost = 10'000'000;
    return static_cast<std::uint32_t>(std::min(v.as_uint().value_or(0), kMost));
}

std::string shown(std::string_view text) {
    std::string out(text.substr(0, kShown));
    for (char& c : out) {
        if ((c >= 0 && c < ' ') || c == 127) c = ' ';
    }
    if (text.size() > kShown) out += "…";
    return out;
}

std::string message_of(codec::JsonView wrong) {
    std::string_view message = text_of(wrong.find("message"));
    if (message.empty()) message = text_of(wrong);
    return message.empty() ? "the server does not say why" : shown(message);
}

}  // namespace

std::string error_message(codec::JsonDocument& json, std::string_view body) {
    if (const auto root = json.parse(body)) {
        if (const auto wrong = root->find("error"); wrong.present()) return message_of(wrong);
        for (const char* key : {"message", "detail"}) {
            if (const auto text = text_of(root->find(key)); !text.empty()) return shown(text);
        }
    }
    return body.empty() ? "the server does not say why" : shown(body);
}

void StreamedAnswer::fail(Outcome outcome, std::string reason, std::string message) {
    if (!fault_) fault_ = Fault{outcome, std::move(reason), std::move(message)};
}

void StreamedAnswer::feed(std::string_view bytes, TimePoint at) {
    if (fault_) return;
    const auto fed = events_.feed(bytes);
    while (auto event = events_.next()) {
        on_event(event->data, at);
        if (fault_) return;
    }
    if (!fed) fail(Outcome::kBadAnswer, "event too long", fed.error().message);
}

void StreamedAnswer::on_event(std::string_view data, TimePoint at) {
    if (done_) return;
    if (data == "[DONE]") {
        done_ = true;
        return;
    }
    const auto root = json_.parse(data);
    if (!root) {
        fail(Outcome::kBadAnswer, "not JSON", "an event is not JSON: " + root.error().message);
        return;
    }
    if (const auto wrong = root->find("error"); !wrong.is_null()) {
        fail(Outcome::kServerError, "error in the stream", message_of(wrong));
        return;
    }
    root->find("choices").each_element([&](std::size_t, codec::JsonView choice) {
        on_choice(choice, at);
        return false;  // one answer was asked for
    });
    if (const auto usage = root->find("usage"); !usage.is_null()) {
        usage_ = Usage{
            .prompt_tokens = count_of(usage.find("prompt_tokens")),
            .cached_tokens = count_of(usage.find("prompt_tokens_details").find("cached_tokens")),
            .output_tokens = count_of(usage.find("completion_tokens"))};
    }
}

void StreamedAnswer::on_choice(codec::JsonView choice, TimePoint at) {
    const auto delta = choice.find("delta");
    bool some = false;
    const auto take = [&](codec::JsonView part) {
        const std::string_view text = text_of(part);
        some = some || !text.empty();
        if (keep_text_) text_ += text;
    };
    if (delta.present()) {
        take(delta.find("content"));
        // What a model thinks is tokens too.
        take(delta.find("reasoning_content"));
        take(delta.find("reasoning"));
        some = some || delta.find("tool_calls").size() > 0;
    } else {
        take(choice.find("text"));
    }
    if (some) pieces_.push_back(at);
    if (!choice.find("finish_reason").is_null()) finish_ = at;
}

void StreamedAnswer::end() {
    if (fault_) return;
    if (!done_ && !finish_) {
        if (pieces_.empty() && !usage_) {
            fail(Outcome::kBadAnswer, "no events", "the answer has no events of a stream");
        } else {
            fail(Outcome::kReset, "cut short", "the answer ended before its end");
        }
        return;
    }
    // Tokens whose text is empty (special ones) leave no piece.
    if (pieces_.empty() && finish_ && usage_ && usage_->output_tokens > 0) {
        pieces_.push_back(*finish_);
    }
}

std::uint32_t StreamedAnswer::output_tokens() const {
    return usage_ ? usage_->output_tokens : static_cast<std::uint32_t>(pieces_.size());
}

std::vector<float> token_gaps(std::span<const TimePoint> pieces, std::uint32_t tokens) {
    std::vector<float> gaps;
    if (pieces.size() < 2) return gaps;
    const std::size_t rest = pieces.size() - 1;
    const std::size_t shared = std::max<std::size_t>(tokens, pieces.size()) - 1;
    gaps.reserve(shared);
    for (std::size_t i = 1; i <= rest; ++i) {
        const std::size_t n = shared * i / rest - shared * (i - 1) / rest;
        const double gap = to_seconds(pieces[i] - pieces[i - 1]) / static_cast<double>(n);
        gaps.insert(gaps.end(), n, static_cast<float>(gap));
    }
    return gaps;
}

}  // namespace stator::loadgen
