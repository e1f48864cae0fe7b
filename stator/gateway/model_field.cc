#include "stator/gateway/model_field.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "stator/codec/json_writer.h"

namespace stator::gateway {
namespace {

std::string quoted(std::string_view text) {
    std::string out;
    codec::JsonWriter(out).string(text);
    return out;
}

/// Behind the string that begins at `at`, which is a quotation mark; npos where it does not end.
std::size_t end_of_string(std::string_view text, std::size_t at) {
    ++at;
    while ((at = text.find_first_of("\"\\", at)) != std::string_view::npos) {
        if (text[at] == '"') return at + 1;
        at += 2;  // and what is escaped
        if (at >= text.size()) break;
    }
    return std::string_view::npos;
}

std::size_t skip_blank(std::string_view text, std::size_t at) {
    return std::min(text.find_first_not_of(" \t\r\n", at), text.size());
}

}  // namespace

std::optional<std::string> with_model(std::string_view object, std::string_view model) {
    constexpr std::string_view kKey = R"("model")";
    int depth = 0;
    std::size_t at = 0;
    while ((at = object.find_first_of("\"{}[]", at)) != std::string_view::npos) {
        if (object[at] != '"') {
            depth += object[at] == '{' || object[at] == '[' ? 1 : -1;
            ++at;
            continue;
        }
        const std::size_t end = end_of_string(object, at);
        if (end == std::string_view::npos) return std::nullopt;
        const bool is_key = depth == 1 && object.substr(at, end - at) == kKey;
        at = end;
        if (!is_key) continue;
        const std::size_t colon = skip_blank(object, end);
        if (colon == object.size() || object[colon] != ':') continue;  // a value, not a key
        const std::size_t begin = skip_blank(object, colon + 1);
        if (begin == object.size() || object[begin] != '"') return std::nullopt;
        const std::size_t behind = end_of_string(object, begin);
        if (behind == std::string_view::npos) return std::nullopt;
        std::string out;
        out.reserve(object.size() + model.size());
        out.append(object.substr(0, begin)).append(quoted(model)).append(object.substr(behind));
        return out;
    }
    return std::nullopt;
}

ModelRenamer::ModelRenamer(std::string_view from, std::string_view to) {
    for (const std::string_view before : {R"("model":)", R"("model": )"}) {
        patterns_.push_back(std::string(before) + quoted(from));
        replacements_.push_back(std::string(before) + quoted(to));
    }
}

std::string ModelRenamer::take(std::string_view piece) {
    kept_ += piece;
    std::string out;
    std::size_t at = 0;
    while (at < kept_.size()) {
        const std::size_t quote = std::min(kept_.find('"', at), kept_.size());
        out.append(kept_, at, quote - at);
        at = quote;
        if (at == kept_.size()) break;
        const std::string_view rest = std::string_view(kept_).substr(at);
        const auto whole = std::ranges::find_if(
            patterns_, [&](const std::string& p) { return rest.starts_with(p); });
        if (whole != patterns_.end()) {
            out += replacements_[static_cast<std::size_t>(whole - patterns_.begin())];
            at += whole->size();
            continue;
        }
        if (std::ranges::any_of(patterns_,
                                [&](const std::string& p) { return p.starts_with(rest); })) {
            break;
        }
        out += '"';
        ++at;
    }
    kept_.erase(0, at);
    return out;
}

std::string ModelRenamer::finish() { return std::exchange(kept_, std::string()); }

}  // namespace stator::gateway
