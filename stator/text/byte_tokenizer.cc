#include "stator/text/byte_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "stator/base/check.h"

namespace stator::text {

ByteTokenizer::ByteTokenizer(std::vector<std::string> specials) {
    for (unsigned i = 0; i < 256; ++i) {
        bytes_[i] = static_cast<char>(i);
        const bool printable = i >= 0x20 && i < 0x7F;
        spellings_.push_back(printable ? std::string(1, bytes_[i]) : fmt::format("<0x{:02X}>", i));
    }
    spellings_.emplace_back(kEndSpelling);
    for (std::string& s : specials) spellings_.push_back(std::move(s));

    text_ids_.resize(spellings_.size() - kEnd);
    std::iota(text_ids_.begin(), text_ids_.end(), kEnd);
    std::ranges::sort(text_ids_, [this](TokenId a, TokenId b) {
        return std::pair(spellings_[b].size(), a) < std::pair(spellings_[a].size(), b);
    });
    for (const TokenId id : text_ids_) {
        STATOR_CHECK(!spellings_[id].empty(), "a special token needs a text");
        STATOR_CHECK(std::ranges::find(texts_, spellings_[id]) == texts_.end(),
                     "special tokens need different texts");
        texts_.push_back(spellings_[id]);
        begins_special_[static_cast<unsigned char>(spellings_[id][0])] = true;
    }
}

Result<void> ByteTokenizer::encode(std::string_view text, SpecialTokens special, bool /*add_bos*/,
                                   std::vector<TokenId>& out) const {
    out.reserve(out.size() + text.size());
    for (std::size_t at = 0; at < text.size();) {
        const auto byte = static_cast<unsigned char>(text[at]);
        std::size_t match = texts_.size();
        if (special == SpecialTokens::kParse && begins_special_[byte]) {
            for (match = 0; match < texts_.size(); ++match) {
                if (text.substr(at).starts_with(texts_[match])) break;
            }
        }
        if (match < texts_.size()) {
            out.push_back(text_ids_[match]);
            at += texts_[match].size();
        } else {
            out.push_back(byte);
            ++at;
        }
    }
    return {};
}

std::uint32_t ByteTokenizer::vocab_size() const {
    return static_cast<std::uint32_t>(spellings_.size());
}

std::string_view ByteTokenizer::bytes(TokenId token) const {
    if (token >= bytes_.size()) return {};
    return {&bytes_[token], 1};
}

std::string_view ByteTokenizer::spelling(TokenId token) const {
    if (token >= spellings_.size()) return {};
    return spellings_[token];
}

bool ByteTokenizer::is_control(TokenId token) const {
    return token >= kEnd && token < spellings_.size();
}

}  // namespace stator::text
