#include "stator/requests/fields.h"

#include "stator/codec/utf8.h"

namespace stator::requests {

Result<void> read_text(codec::MsgpackReader& r, std::string& to, std::size_t limit) {
    auto text = r.string();
    if (!text) return tl::unexpected(std::move(text.error()));
    if (text->size() > limit) {
        return error(ErrorCode::kTooLarge, "a text of {} bytes, at most {}", text->size(), limit);
    }
    to.assign(*text);
    return {};
}

void write_text(codec::MsgpackWriter& w, std::string_view text, std::size_t limit) {
    std::string valid;
    codec::utf8_append_lossy(valid, text.substr(0, limit));
    if (valid.size() > limit) {
        valid.resize(codec::utf8_valid_prefix(std::string_view(valid).substr(0, limit)));
    }
    w.string(valid);
}

}  // namespace stator::requests
