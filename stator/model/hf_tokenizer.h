#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/text/special_guard.h"
#include "stator/text/tokenizer.h"

struct StatorTokenizer;
struct StatorTokenEntry;

namespace stator::model {

/// What a tokenizer.json does not say.
struct HfTokenizerOptions {
    std::vector<text::TokenId> end_tokens = {};  ///< from generation_config.json or config.json
    /// Whether texts begin with BOS. Not given: with whatever the template of the file's
    /// post-processor puts in front of them.
    std::optional<bool> add_bos = {};
    std::string bos = {};  ///< as text; empty where the model has none
    std::string eos = {};  ///< ends a generation where `end_tokens` is empty
};

/// A Hugging Face tokenizer.json. The ids are those of the `tokenizers` library; a faster engine
/// does the work for models where it gave the same ids on a corpus made for the purpose when the
/// file was loaded. What tokens stand for lies in one flat table, so everything but encoding is a
/// look-up.
class HfTokenizer final : public text::Tokenizer {
  public:
    using TokenId = text::TokenId;

    /// `tokenizer_json`: the file's bytes, which may be anything. Takes up to a second for large
    /// vocabularies, and for a moment several times the memory that stays.
    [[nodiscard]] static Result<std::shared_ptr<const HfTokenizer>> load(
        std::string_view tokenizer_json, HfTokenizerOptions options);
    ~HfTokenizer() override;
    HfTokenizer(const HfTokenizer&) = delete;
    HfTokenizer& operator=(const HfTokenizer&) = delete;

    [[nodiscard]] Result<void> encode(std::string_view text, text::SpecialTokens special,
                                      bool add_bos, std::vector<TokenId>& out) const override;
    [[nodiscard]] Result<void> encode_more(std::string_view text, text::SpecialTokens special,
                                           std::vector<TokenId>& out) const override;

    [[nodiscard]] std::size_t bytes_per_thread() const override;
    [[nodiscard]] std::uint32_t vocab_size() const override { return entry_count_; }
    [[nodiscard]] std::string_view bytes(TokenId token) const override;
    [[nodiscard]] std::string_view first_bytes(TokenId token) const override;
    [[nodiscard]] std::string_view spelling(TokenId token) const override;
    [[nodiscard]] bool is_control(TokenId token) const override;
    [[nodiscard]] bool is_end(TokenId token) const override;
    [[nodiscard]] std::span<const std::string> special_texts() const override {
        return special_texts_;
    }

    /// The added token with this text; special or not.
    [[nodiscard]] std::optional<TokenId> added_token(std::string_view text) const;
    /// What encode() puts in front of a text where it is asked to.
    [[nodiscard]] std::span<const TokenId> lead() const { return lead_; }
    [[nodiscard]] const std::string& bos() const { return options_.bos; }
    [[nodiscard]] const std::string& eos() const { return options_.eos; }

    /// "fastokens", "tokenizers-next" or "tokenizers".
    [[nodiscard]] std::string engine() const { return engine_; }
    /// A sentence for the log: how many tokens, by which engine, and why by no faster one.
    [[nodiscard]] std::string describe() const;

  private:
    struct FreeTokenizer {
        void operator()(StatorTokenizer* t) const;
    };
    struct Added {
        std::string text;
        TokenId id = 0;
        bool special = false;
    };

    explicit HfTokenizer(HfTokenizerOptions options);
    void read_facts();
    void collect_special_texts();
    [[nodiscard]] Result<void> set_lead(std::span<const TokenId> of_template);
    Result<void> encode_as(std::string_view text, text::SpecialTokens special, bool more,
                           std::vector<TokenId>& out) const;
    Result<void> encode_piece(std::string_view text, bool more, std::vector<TokenId>& out) const;
    [[nodiscard]] bool may_hold_special(std::string_view text) const;

    HfTokenizerOptions options_;
    std::unique_ptr<StatorTokenizer, FreeTokenizer> tokenizer_;
    const StatorTokenEntry* entries_ = nullptr;  ///< in tokenizer_, as the texts
    std::uint32_t entry_count_ = 0;
    const char* text_ = nullptr;
    std::vector<TokenId> template_lead_;
    std::vector<TokenId> lead_;
    std::vector<Added> added_;  ///< sorted by text
    std::vector<std::string> special_texts_;
    std::string first_of_special_;  ///< first bytes of special texts, each once
    std::unique_ptr<text::SpecialGuard> guard_;
    std::string engine_;
    std::string note_;
};

}  // namespace stator::model
