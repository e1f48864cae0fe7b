#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/text/special_guard.h"
#include "stator/text/tokenizer.h"

struct llama_model;
struct llama_vocab;

namespace stator::model {

/// llama.cpp's tokenizer of a model that was loaded without its weights. What a token stands for is
/// copied into one flat table, so everything but encoding is a look-up. llama.cpp's vocabulary is
/// not changed once loaded; encoding from many threads at once is fine. Room-internal.
class LlamaTokenizer final : public text::Tokenizer {
  public:
    using TokenId = text::TokenId;

    /// `path`: a file that GgufFile::check_tokenizer() passed.
    [[nodiscard]] static Result<std::unique_ptr<LlamaTokenizer>> load(const std::string& path);
    ~LlamaTokenizer() override;
    LlamaTokenizer(const LlamaTokenizer&) = delete;
    LlamaTokenizer& operator=(const LlamaTokenizer&) = delete;

    [[nodiscard]] Result<void> encode(std::string_view text, text::SpecialTokens special,
                                      bool add_bos, std::vector<TokenId>& out) const override;
    [[nodiscard]] Result<void> encode_more(std::string_view text, text::SpecialTokens special,
                                           std::vector<TokenId>& out) const override;

    [[nodiscard]] std::uint32_t vocab_size() const override {
        return static_cast<std::uint32_t>(entries_.size());
    }
    [[nodiscard]] std::string_view bytes(TokenId token) const override;
    [[nodiscard]] std::string_view spelling(TokenId token) const override;
    [[nodiscard]] bool is_control(TokenId token) const override {
        return token < entries_.size() && entries_[token].control;
    }
    [[nodiscard]] bool is_end(TokenId token) const override {
        return token < entries_.size() && entries_[token].end;
    }
    [[nodiscard]] std::span<const std::string> special_texts() const override {
        return special_texts_;
    }

    /// As text; empty where the model has none.
    [[nodiscard]] const std::string& bos() const { return bos_; }
    [[nodiscard]] const std::string& eos() const { return eos_; }

  private:
    struct FreeModel {
        void operator()(llama_model* m) const;
    };
    /// Where a token's texts lie in text_.
    struct Entry {
        std::uint32_t bytes_at = 0;
        std::uint32_t bytes_size = 0;
        std::uint32_t spelling_at = 0;
        std::uint32_t spelling_size = 0;
        bool control = false;
        bool end = false;
    };

    LlamaTokenizer() = default;
    void fill_table();
    void collect_special_texts();
    void learn_lead();
    Result<void> encode_as(std::string_view text, text::SpecialTokens special, bool more,
                           std::vector<TokenId>& out) const;
    Result<void> encode_piece(std::string_view text, text::SpecialTokens special, bool more,
                              std::vector<TokenId>& out) const;
    Result<void> encode_raw(std::string_view text, text::SpecialTokens special,
                            std::vector<TokenId>& out) const;

    std::unique_ptr<llama_model, FreeModel> model_;
    const llama_vocab* vocab_ = nullptr;
    std::string text_;
    std::vector<Entry> entries_;
    std::vector<std::string> special_texts_;
    /// Breaks special texts that llama.cpp reads as tokens even where it is told not to.
    std::unique_ptr<text::SpecialGuard> always_parsed_;
    std::vector<TokenId> lead_;  ///< what kLead encodes to at the beginning of a text
    std::string bos_;
    std::string eos_;
    std::int64_t bos_id_ = -1;  ///< to put in front of texts; -1 = none
};

}  // namespace stator::model
