#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/tokenizer.h"

namespace stator::text::guides {

/// A vocabulary of given texts for tests: token i is texts[i], one more ends a text.
class Texts final : public Tokenizer {
  public:
    explicit Texts(std::vector<std::string> texts) : texts_(std::move(texts)) {}

    [[nodiscard]] TokenId id(std::string_view text) const {
        for (std::size_t i = 0; i < texts_.size(); ++i) {
            if (texts_[i] == text) return static_cast<TokenId>(i);
        }
        return end();
    }
    [[nodiscard]] TokenId end() const { return static_cast<TokenId>(texts_.size()); }

    [[nodiscard]] Result<void> encode(std::string_view /*text*/, SpecialTokens /*special*/,
                                      bool /*add_bos*/,
                                      std::vector<TokenId>& /*out*/) const override {
        return error(ErrorCode::kUnsupported, "only the other way");
    }
    [[nodiscard]] std::uint32_t vocab_size() const override { return end() + 1; }
    [[nodiscard]] std::string_view bytes(TokenId token) const override {
        return token < end() ? std::string_view(texts_[token]) : std::string_view();
    }
    [[nodiscard]] std::string_view spelling(TokenId token) const override {
        return token == end() ? "<|end|>" : bytes(token);
    }
    [[nodiscard]] bool is_control(TokenId token) const override { return token == end(); }
    [[nodiscard]] bool is_end(TokenId token) const override { return token == end(); }
    [[nodiscard]] std::span<const std::string> special_texts() const override { return {}; }

  private:
    std::vector<std::string> texts_;
};

}  // namespace stator::text::guides
