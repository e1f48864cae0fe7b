#include "stator/model/hf_tokenizer.h"

#include <stator_text.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "stator/model/turn_marks.h"

namespace stator::model {

using text::SpecialTokens;

namespace {

/// Gives the crate's text back.
class OwnedText {
  public:
    OwnedText() = default;
    OwnedText(const OwnedText&) = delete;
    OwnedText& operator=(const OwnedText&) = delete;
    ~OwnedText() { stator_text_free(text_); }

    StatorText* out() { return &text_; }
    [[nodiscard]] std::string_view view() const {
        return text_.size == 0 ? std::string_view{} : std::string_view(text_.data, text_.size);
    }

  private:
    StatorText text_{};
};

/// Where encoded tokens go. No exception may pass through the crate.
struct Taken {
    std::vector<text::TokenId>& out;
    bool no_memory = false;

    static void take(void* self, const std::uint32_t* ids, std::size_t count) noexcept {
        auto& taken = *static_cast<Taken*>(self);
        try {
            taken.out.insert(taken.out.end(), ids, ids + count);
        } catch (const std::exception&) {
            taken.no_memory = true;
        }
    }
};

}  // namespace

void HfTokenizer::FreeTokenizer::operator()(StatorTokenizer* t) const { stator_tokenizer_free(t); }

HfTokenizer::HfTokenizer(HfTokenizerOptions options) : options_(std::move(options)) {}
HfTokenizer::~HfTokenizer() = default;

Result<std::shared_ptr<const HfTokenizer>> HfTokenizer::load(std::string_view tokenizer_json,
                                                             HfTokenizerOptions options) {
    std::shared_ptr<HfTokenizer> self(new HfTokenizer(std::move(options)));
    StatorTokenizer* loaded = nullptr;
    OwnedText message;
    if (stator_tokenizer_load(tokenizer_json.data(), tokenizer_json.size(), &loaded,
                              message.out()) != 0) {
        return error(ErrorCode::kInvalidArgument, "the tokenizer.json can't be used: {}",
                     message.view());
    }
    self->tokenizer_.reset(loaded);
    self->read_facts();
    self->collect_special_texts();
    if (auto ok = self->set_lead(self->template_lead_); !ok) return tl::unexpected(ok.error());
    return self;
}

void HfTokenizer::read_facts() {
    StatorTokenizerFacts facts{};
    stator_tokenizer_facts(tokenizer_.get(), &facts);
    entries_ = facts.entries;
    entry_count_ = static_cast<std::uint32_t>(facts.entry_count);
    text_ = facts.text;
    template_lead_.assign(facts.lead, facts.lead + facts.lead_count);
    engine_.assign(facts.engine, facts.engine_size);
    note_.assign(facts.note, facts.note_size);
    added_.reserve(facts.added_count);
    for (std::size_t i = 0; i < facts.added_count; ++i) {
        StatorAddedToken token{};
        stator_tokenizer_added(tokenizer_.get(), i, &token);
        added_.push_back({{token.text, token.text_size}, token.id, token.special});
    }
    std::ranges::sort(added_, {}, &Added::text);
}

void HfTokenizer::collect_special_texts() {
    for (const Added& token : added_) {
        if (token.special || looks_like_mark(token.text)) special_texts_.push_back(token.text);
    }
    std::ranges::sort(special_texts_, [](const std::string& a, const std::string& b) {
        return std::pair(b.size(), std::string_view(a)) < std::pair(a.size(), std::string_view(b));
    });
    for (const std::string& text : special_texts_) {
        if (first_of_special_.find(text[0]) == std::string::npos) first_of_special_ += text[0];
    }
    guard_ = std::make_unique<text::SpecialGuard>(special_texts_);
}

Result<void> HfTokenizer::set_lead(std::span<const TokenId> of_template) {
    if (options_.end_tokens.empty() && !options_.eos.empty()) {
        if (const auto id = added_token(options_.eos)) options_.end_tokens.push_back(*id);
    }
    if (!options_.add_bos.value_or(true)) return {};
    lead_.assign(of_template.begin(), of_template.end());
    if (!options_.add_bos.has_value() || !lead_.empty()) return {};
    const auto id = added_token(options_.bos);
    if (!id) {
        return error(ErrorCode::kInvalidArgument,
                     "texts are to begin with the token '{}', which the tokenizer.json does not "
                     "have among its added tokens",
                     options_.bos);
    }
    lead_.push_back(*id);
    return {};
}

std::optional<text::TokenId> HfTokenizer::added_token(std::string_view text) const {
    const auto at = std::ranges::lower_bound(added_, text, {}, &Added::text);
    if (at == added_.end() || at->text != text) return std::nullopt;
    return at->id;
}

std::string HfTokenizer::describe() const {
    std::string sentence = fmt::format("{} tokens, encoded by {}", entry_count_, engine_);
    if (!note_.empty()) sentence += fmt::format(" ({})", note_);
    return sentence;
}

Result<void> HfTokenizer::encode(std::string_view text, SpecialTokens special, bool add_bos,
                                 std::vector<TokenId>& out) const {
    if (add_bos) out.insert(out.end(), lead_.begin(), lead_.end());
    return encode_as(text, special, false, out);
}

Result<void> HfTokenizer::encode_more(std::string_view text, SpecialTokens special,
                                      std::vector<TokenId>& out) const {
    return encode_as(text, special, true, out);
}

bool HfTokenizer::may_hold_special(std::string_view text) const {
    return std::ranges::any_of(first_of_special_, [text](char c) {
        return std::memchr(text.data(), c, text.size()) != nullptr;
    });
}

/// The engines always read special tokens; in a text that must not have any, each is broken.
Result<void> HfTokenizer::encode_as(std::string_view text, SpecialTokens special, bool more,
                                    std::vector<TokenId>& out) const {
    if (special == SpecialTokens::kParse || text.empty() || !may_hold_special(text)) {
        return encode_piece(text, more, out);
    }
    const std::string guarded = guard_->guard(text);
    if (guarded == text) return encode_piece(text, more, out);
    for (const std::string_view piece : text::guarded_pieces(guarded)) {
        if (auto ok = encode_piece(piece, more, out); !ok) return ok;
        more = true;
    }
    return {};
}

Result<void> HfTokenizer::encode_piece(std::string_view text, bool more,
                                       std::vector<TokenId>& out) const {
    const std::size_t at = out.size();
    Taken taken{out};
    OwnedText message;
    const bool done = stator_tokenizer_encode(tokenizer_.get(), text.data(), text.size(), more,
                                              Taken::take, &taken, message.out()) == 0;
    if (done && !taken.no_memory) return {};
    out.resize(at);
    if (taken.no_memory) return error(ErrorCode::kExhausted, "no memory for the tokens of a text");
    return error(ErrorCode::kInvalidArgument,
                 "the text can't be encoded with this model's tokenizer ({})", message.view());
}

std::size_t HfTokenizer::bytes_per_thread() const {
    // fastokens copies a table of words to each thread: three slots of 32 bytes per token, rounded
    // up to a power of two.
    constexpr std::size_t kPerToken = std::size_t{3} * 32;
    return engine_ == "fastokens" ? std::bit_ceil(kPerToken * entry_count_) : 0;
}

std::string_view HfTokenizer::bytes(TokenId token) const {
    if (token >= entry_count_) return {};
    const StatorTokenEntry& entry = entries_[token];
    return {text_ + entry.bytes_at, entry.bytes_size};
}

std::string_view HfTokenizer::first_bytes(TokenId token) const {
    if (token >= entry_count_) return {};
    const StatorTokenEntry& entry = entries_[token];
    return {text_ + entry.first_at, entry.first_size};
}

std::string_view HfTokenizer::spelling(TokenId token) const {
    if (token >= entry_count_) return {};
    const StatorTokenEntry& entry = entries_[token];
    return {text_ + entry.spelling_at, entry.spelling_size};
}

bool HfTokenizer::is_control(TokenId token) const {
    return token < entry_count_ && entries_[token].control;
}

bool HfTokenizer::is_end(TokenId token) const {
    return std::ranges::find(options_.end_tokens, token) != options_.end_tokens.end();
}

}  // namespace stator::model
