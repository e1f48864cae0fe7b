#include "stator/model/llama_tokenizer.h"

#include <llama.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "stator/codec/utf8.h"
#include "stator/model/llama_log.h"
#include "stator/model/turn_marks.h"

namespace stator::model {

namespace {

using text::SpecialTokens;

/// SentencePiece vocabularies put a space in front of every text they are given. To encode a text
/// that goes on where another ended, this is put in front instead, and its tokens are taken off
/// again: it never merges with what follows.
constexpr std::string_view kLead = "\n";

/// llama.cpp splits texts for byte-pair vocabularies with std::regex, which goes down the stack by
/// a frame or more per matched character (unless the vocabulary is one of those with a splitter of
/// its own): a run of some 50,000 characters without a space would overflow 8 MiB. Longer runs than
/// this are encoded in parts.
constexpr std::size_t kMaxRunCharacters = 4096;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Length of the longest beginning of `text` without too long a run; on a character's border.
std::size_t bounded_prefix(std::string_view text) {
    std::size_t run = 0;
    bool spaces = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if ((static_cast<unsigned char>(text[i]) & 0xC0U) == 0x80) continue;
        if (is_space(text[i]) != spaces) {
            spaces = !spaces;
            run = 0;
        }
        if (++run > kMaxRunCharacters) return i;
    }
    return text.size();
}

/// `end`, or, where it lies inside a special text, where that begins.
std::size_t before_special(std::string_view text, std::size_t end,
                           std::span<const std::string> special_texts) {
    for (bool moved = true; moved;) {
        moved = false;
        for (const std::string& special : special_texts) {
            const std::size_t from = end - std::min(end, special.size() - 1);
            const std::size_t at = text.substr(0, end + special.size() - 1).find(special, from);
            if (at == std::string_view::npos || at >= end || at == 0) continue;
            end = at;
            moved = true;
        }
    }
    return end;
}

}  // namespace

void LlamaTokenizer::FreeModel::operator()(llama_model* m) const { llama_model_free(m); }

LlamaTokenizer::~LlamaTokenizer() = default;

Result<std::unique_ptr<LlamaTokenizer>> LlamaTokenizer::load(const std::string& path) {
    const LlamaErrors errors;
    llama_model_params params = llama_model_default_params();
    ggml_backend_dev_t no_devices[] = {nullptr};
    params.devices = no_devices;
    params.n_gpu_layers = 0;
    params.vocab_only = true;
    std::unique_ptr<LlamaTokenizer> self(new LlamaTokenizer);
    try {
        self->model_.reset(llama_model_load_from_file(path.c_str(), params));
        if (!self->model_) {
            return error(ErrorCode::kInvalidArgument, "the model file '{}' can't be used: {}", path,
                         errors.first());
        }
        self->vocab_ = llama_model_get_vocab(self->model_.get());
        self->fill_table();
        self->collect_special_texts();
        self->learn_lead();
    } catch (const std::exception& e) {
        return error(ErrorCode::kInvalidArgument,
                     "the model file '{}' can't be used: its tokenizer is damaged ({})", path,
                     e.what());
    }
    return self;
}

void LlamaTokenizer::fill_table() {
    const auto count = static_cast<std::uint32_t>(llama_vocab_n_tokens(vocab_));
    entries_.resize(count);
    std::string piece(64, '\0');
    const auto read_piece = [&](llama_token id, bool special) -> std::string_view {
        auto read = [&] {
            return llama_token_to_piece(vocab_, id, piece.data(),
                                        static_cast<std::int32_t>(piece.size()), 0, special);
        };
        std::int32_t size = read();
        if (size < 0) {
            piece.resize(static_cast<std::size_t>(-static_cast<std::int64_t>(size)));
            size = read();
        }
        return std::string_view(piece).substr(0, static_cast<std::size_t>(std::max(size, 0)));
    };
    const auto append = [this](std::string_view s) {
        const auto at = static_cast<std::uint32_t>(text_.size());
        text_ += s;
        return at;
    };
    for (std::uint32_t i = 0; i < count; ++i) {
        const auto id = static_cast<llama_token>(i);
        Entry& entry = entries_[i];
        const auto attributes = static_cast<unsigned>(llama_vocab_get_attr(vocab_, id));
        entry.control = (attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0;
        entry.end = llama_vocab_is_eog(vocab_, id);
        const std::string_view bytes = entry.control ? std::string_view{} : read_piece(id, false);
        entry.bytes_at = append(bytes);
        entry.bytes_size = static_cast<std::uint32_t>(bytes.size());
        if (!bytes.empty() && codec::utf8_valid(bytes)) {
            entry.spelling_at = entry.bytes_at;
            entry.spelling_size = entry.bytes_size;
        } else {
            const std::string_view name = llama_vocab_get_text(vocab_, id);
            entry.spelling_at = append(name);
            entry.spelling_size = static_cast<std::uint32_t>(name.size());
        }
    }
    const auto name_of = [this](llama_token id) {
        return id < 0 ? std::string{} : std::string(llama_vocab_get_text(vocab_, id));
    };
    const llama_token bos = llama_vocab_bos(vocab_);
    bos_ = name_of(bos);
    eos_ = name_of(llama_vocab_eos(vocab_));
    if (llama_vocab_get_add_bos(vocab_)) bos_id_ = bos;
}

void LlamaTokenizer::collect_special_texts() {
    std::vector<std::string> always_parsed;
    for (std::uint32_t i = 0; i < entries_.size(); ++i) {
        const auto id = static_cast<llama_token>(i);
        const std::string_view name = llama_vocab_get_text(vocab_, id);
        const auto attributes = static_cast<unsigned>(llama_vocab_get_attr(vocab_, id));
        const bool added = (attributes & LLAMA_TOKEN_ATTR_USER_DEFINED) != 0;
        if (name.empty() || !(entries_[i].control || (added && looks_like_mark(name)))) continue;
        special_texts_.emplace_back(name);
        if (!entries_[i].control) always_parsed.emplace_back(name);
    }
    std::ranges::sort(special_texts_, [](const std::string& a, const std::string& b) {
        return std::pair(b.size(), std::string_view(a)) < std::pair(a.size(), std::string_view(b));
    });
    const auto twice = std::ranges::unique(special_texts_);
    special_texts_.erase(twice.begin(), twice.end());
    if (!always_parsed.empty()) {
        always_parsed_ = std::make_unique<text::SpecialGuard>(always_parsed);
    }
}

void LlamaTokenizer::learn_lead() {
    if (llama_vocab_type(vocab_) != LLAMA_VOCAB_TYPE_SPM) return;
    if (!encode_raw(kLead, SpecialTokens::kAsText, lead_)) lead_.clear();
}

Result<void> LlamaTokenizer::encode(std::string_view text, SpecialTokens special, bool add_bos,
                                    std::vector<TokenId>& out) const {
    if (add_bos && bos_id_ >= 0) out.push_back(static_cast<TokenId>(bos_id_));
    return encode_as(text, special, false, out);
}

Result<void> LlamaTokenizer::encode_more(std::string_view text, SpecialTokens special,
                                         std::vector<TokenId>& out) const {
    return encode_as(text, special, true, out);
}

Result<void> LlamaTokenizer::encode_as(std::string_view text, SpecialTokens special, bool more,
                                       std::vector<TokenId>& out) const {
    if (special == SpecialTokens::kParse || !always_parsed_) {
        return encode_piece(text, special, more, out);
    }
    const std::string guarded = always_parsed_->guard(text);
    for (const std::string_view piece : text::guarded_pieces(guarded)) {
        if (auto ok = encode_piece(piece, special, more, out); !ok) return ok;
        more = true;
    }
    return {};
}

Result<void> LlamaTokenizer::encode_piece(std::string_view text, SpecialTokens special, bool more,
                                          std::vector<TokenId>& out) const {
    if (llama_vocab_type(vocab_) == LLAMA_VOCAB_TYPE_BPE) {
        while (!text.empty()) {
            std::size_t size = bounded_prefix(text);
            if (size < text.size()) size = before_special(text, size, special_texts_);
            if (auto ok = encode_raw(text.substr(0, size), special, out); !ok) return ok;
            text.remove_prefix(size);
        }
        return {};
    }
    if (text.empty()) return {};
    if (!more || lead_.empty()) return encode_raw(text, special, out);
    const std::size_t at = out.size();
    if (auto ok = encode_raw(std::string(kLead).append(text), special, out); !ok) return ok;
    const auto begin = out.begin() + static_cast<std::ptrdiff_t>(at);
    if (out.size() - at >= lead_.size() && std::equal(lead_.begin(), lead_.end(), begin)) {
        out.erase(begin, begin + static_cast<std::ptrdiff_t>(lead_.size()));
        return {};
    }
    out.resize(at);
    return encode_raw(text, special, out);
}

Result<void> LlamaTokenizer::encode_raw(std::string_view text, SpecialTokens special,
                                        std::vector<TokenId>& out) const {
    constexpr std::size_t kMaxBytes = std::numeric_limits<std::int32_t>::max() / 2;
    if (text.size() > kMaxBytes) {
        return error(ErrorCode::kTooLarge, "a text of {} bytes is too long to encode (at most {})",
                     text.size(), kMaxBytes);
    }
    static_assert(sizeof(TokenId) == sizeof(llama_token));
    const std::size_t at = out.size();
    // Enough for most texts; where it is not, llama.cpp says what is, and encodes once more.
    std::size_t room = text.size() / 2 + 16;
    for (int attempt = 0; attempt < 2; ++attempt) {
        out.resize(at + room);
        std::int32_t count = 0;
        try {
            count = llama_tokenize(vocab_, text.data(), static_cast<std::int32_t>(text.size()),
                                   reinterpret_cast<llama_token*>(out.data() + at),
                                   static_cast<std::int32_t>(room), false,
                                   special == SpecialTokens::kParse);
        } catch (const std::exception& e) {
            out.resize(at);
            return error(ErrorCode::kInvalidArgument,
                         "the text can't be encoded with this model's tokenizer ({}); it must be "
                         "valid UTF-8",
                         e.what());
        }
        if (count >= 0) {
            out.resize(at + static_cast<std::size_t>(count));
            return {};
        }
        room = static_cast<std::size_t>(-static_cast<std::int64_t>(count));
    }
    out.resize(at);
    return error(ErrorCode::kInternal, "the tokenizer changed its mind about a text of {} bytes",
                 text.size());
}

std::string_view LlamaTokenizer::bytes(TokenId token) const {
    if (token >= entries_.size()) return {};
    const Entry& entry = entries_[token];
    return std::string_view(text_).substr(entry.bytes_at, entry.bytes_size);
}

std::string_view LlamaTokenizer::spelling(TokenId token) const {
    if (token >= entries_.size()) return {};
    const Entry& entry = entries_[token];
    return std::string_view(text_).substr(entry.spelling_at, entry.spelling_size);
}

}  // namespace stator::model
