#include "stator/text/guides/vocabulary.h"

namespace stator::text {

Vocabulary::Vocabulary(const Tokenizer& tokenizer) {
    const std::uint32_t size = tokenizer.vocab_size();
    offsets_.reserve(size);
    kinds_.reserve(size);
    for (TokenId token = 0; token < size; ++token) {
        Kind kind = Kind::kText;
        std::string_view bytes = tokenizer.bytes(token);
        if (tokenizer.is_end(token)) {
            kind = Kind::kEnd;
            ends_.push_back(token);
        } else if (tokenizer.is_control(token)) {
            kind = Kind::kSpecial;
        } else if (bytes.empty()) {
            kind = Kind::kUnused;
        }
        if (kind == Kind::kEnd || kind == Kind::kSpecial) bytes = tokenizer.spelling(token);
        bytes_ += bytes;
        offsets_.push_back(bytes_.size());
        kinds_.push_back(static_cast<std::uint8_t>(kind));
    }
}

std::string_view Vocabulary::bytes(TokenId token) const {
    if (token >= size()) return {};
    const std::uint64_t from = token == 0 ? 0 : offsets_[token - 1];
    return std::string_view(bytes_).substr(from, offsets_[token] - from);
}

}  // namespace stator::text
