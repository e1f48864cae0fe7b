#include "stator/text/parsers/harmony.h"

namespace stator::text {
namespace {

constexpr std::size_t kMaxHeader = 1024;

const MarkSet& message_ends() {
    static const MarkSet marks{"<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>"};
    return marks;
}

const MarkSet& header_begins() {
    static const MarkSet marks{"<|channel|>",   "<|start|>", "<|message|>",
                               "<|constrain|>", " to=",      "to="};
    return marks;
}

const MarkSet& header_ends() {
    static const MarkSet marks{"<|message|>"};
    return marks;
}

/// The word behind the last `key` in a header; it ends at white space or a mark.
std::string_view word_behind(std::string_view header, std::string_view key) {
    const std::size_t at = header.rfind(key);
    if (at == std::string_view::npos) return {};
    std::string_view word = header.substr(at + key.size());
    word.remove_prefix(leading_space(word));
    std::size_t n = 0;
    while (n < word.size() && !is_space(word[n]) && word[n] != '<') ++n;
    return word.substr(0, n);
}

}  // namespace

bool Harmony::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kBeginning:
            return beginning(in, out);
        case State::kHeader:
            return header(in, out);
        case State::kBody:
            return body(in, out);
        case State::kArguments:
            return arguments(in, out);
        case State::kAfterArguments:
            return after_arguments(in, out);
        case State::kPlain:
            return plain(in, out);
    }
    return false;
}

void Harmony::content(std::string_view text, OutputEvents& out) {
    if (content_ != nullptr) return content_->push(text, out);
    out.add(OutputEvents::Kind::kContent, text);
}

void Harmony::end(OutputEvents& out) {
    // A header that was never finished.
    if (state_ == State::kHeader) content(header_, out);
    header_.clear();
    if (content_ != nullptr) content_->finish(out);
}

bool Harmony::beginning(Input& in, OutputEvents& /*out*/) {
    switch (header_begins().at(in.rest, in.last).match) {
        case Match::kPart:
            return false;
        case Match::kYes:
            header_.clear();
            return to(State::kHeader);
        case Match::kNo:
            return to(State::kPlain);
    }
    return false;
}

bool Harmony::header(Input& in, OutputEvents& out) {
    const MarkSet::Found found = header_ends().at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kYes) {
        in.take(header_ends()[0].size());
        read_header();
        scan_ = JsonScan();
        return to(State::kBody);
    }
    if (header_.size() == kMaxHeader) {
        content(header_, out);
        header_.clear();
        return to(State::kPlain);
    }
    header_.append(in.take(1));
    return true;
}

void Harmony::read_header() {
    constexpr std::string_view kFunctions = "functions.";
    const std::string_view channel = word_behind(header_, "<|channel|>");
    const std::string_view recipient = word_behind(header_, "to=");
    name_.clear();
    const bool function = recipient.starts_with(kFunctions) && recipient.size() > kFunctions.size();
    if (function && content_ != nullptr) {
        body_ = Body::kContent;
    } else if (function) {
        name_ = std::string(recipient.substr(kFunctions.size()));
        body_ = Body::kCall;
    } else if (channel == "analysis" || !(recipient.empty() || recipient == "user")) {
        body_ = Body::kThinking;
    } else {
        body_ = Body::kContent;
    }
}

void Harmony::message_ended(std::string_view mark) {
    header_.clear();
    // The last two are the next message's own.
    state_ = mark == "<|start|>" || mark == "<|channel|>" ? State::kHeader : State::kBeginning;
    if (state_ == State::kHeader) header_ = std::string(mark);
}

bool Harmony::body(Input& in, OutputEvents& out) {
    if (body_ == Body::kCall) {
        if (is_space(in.front())) {
            in.take(1);
            return true;
        }
        if (in.front() == '{') {
            calls_.begin(out, name_);
            return to(State::kArguments);
        }
    }
    const MarkSet::Found found = message_ends().find(in.rest, in.last);
    if (found.begin > 0) {
        const std::string_view text = in.take(found.begin);
        if (body_ == Body::kThinking) {
            out.add(OutputEvents::Kind::kReasoning, text);
        } else {
            body_ = Body::kContent;  // arguments that are no object
            content(text, out);
        }
    }
    if (found.match != Match::kYes) return false;
    const std::string_view mark = message_ends()[found.mark];
    in.take(mark.size());
    if (body_ == Body::kCall) {
        calls_.begin(out, name_);
        calls_.arguments(out, "{}");
        calls_.end(out);
    }
    message_ended(mark);
    return true;
}

bool Harmony::arguments(Input& in, OutputEvents& out) {
    calls_.pass(scan_, in, out);
    if (scan_.open()) return false;
    if (scan_.done()) {
        calls_.end(out);
    } else {
        calls_.abandon();
    }
    return to(State::kAfterArguments);
}

bool Harmony::after_arguments(Input& in, OutputEvents& /*out*/) {
    if (is_space(in.front())) {
        in.take(1);
        return true;
    }
    body_ = Body::kContent;
    return to(State::kBody);
}

/// Between messages, and in text that has none.
bool Harmony::plain(Input& in, OutputEvents& out) {
    static const MarkSet kNext{"<|start|>", "<|channel|>"};
    const MarkSet::Found found = kNext.find(in.rest, in.last);
    if (found.begin > 0) content(in.take(found.begin), out);
    if (found.match != Match::kYes) return false;
    in.take(kNext[found.mark].size());
    message_ended(kNext[found.mark]);
    return true;
}

}  // namespace stator::text
