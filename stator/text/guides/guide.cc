#include "stator/text/guides/guide.h"

#include <stator_guide.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/text/guides/end_mark.h"
#include "stator/text/guides/vocabulary.h"

namespace stator::text {
namespace {

constexpr std::string_view kParam = "constraint";
constexpr std::uint32_t kAllBits = 0xffffffffU;

struct FreeGuide {
    void operator()(StatorGuide* g) const { stator_guide_free(g); }
};
struct FreeGuides {
    void operator()(StatorGuides* g) const { stator_guides_free(g); }
};

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

tl::unexpected<Error> compile_error(StatorGuideStatus status, std::string_view why) {
    if (status == STATOR_GUIDE_TOO_COMPLEX) {
        return param_error(kParam, "the constraint is too complex: {}", why);
    }
    return param_error(kParam, "the constraint can't be used: {}", why);
}

tl::unexpected<Error> step_error(StatorGuideStatus status, std::string_view why) {
    switch (status) {
        case STATOR_GUIDE_TOO_COMPLEX:
            return param_error(kParam, "the constraint became too complex as the text grew: {}",
                               why);
        case STATOR_GUIDE_STUCK:
            return param_error(kParam, "the constraint leaves no way to go on: {}", why);
        case STATOR_GUIDE_OK:
        case STATOR_GUIDE_INVALID:
        case STATOR_GUIDE_REJECTED:
        case STATOR_GUIDE_PANIC:
            break;
    }
    auto e = error(ErrorCode::kInternal, "the constraint could not be followed: {}", why);
    e.value().param = kParam;
    return e;
}

std::string_view without_leading_blanks(std::string_view text) {
    const std::size_t at = text.find_first_not_of(" \t\r\n");
    return at == std::string_view::npos ? std::string_view{} : text.substr(at);
}

void set_bit(std::span<std::uint32_t> bits, TokenId token, bool to) {
    if (token / 32 >= bits.size()) return;
    const std::uint32_t bit = 1U << (token % 32);
    std::uint32_t& word = bits[token / 32];
    word = to ? word | bit : word & ~bit;
}

}  // namespace

struct Guide::Impl {
    std::unique_ptr<StatorGuide, FreeGuide> machine;
    std::shared_ptr<const Vocabulary> vocabulary;
    std::shared_ptr<const EndMark> mark;  ///< null: constrained from the start
    std::size_t matched = 0;              ///< of the mark, while free
    bool free = false;                    ///< the mark is still to come

    /// Whether text that lies behind the mark in the mark's own token may stand there.
    [[nodiscard]] bool fits(std::string_view rest, bool commit) const;
    /// Makes the first mask on a copy. What no token can begin, or what is too much already, is
    /// then known before the first token; what it learns all copies share.
    [[nodiscard]] Result<void> try_first_mask() const;
    void mask_free(std::span<std::uint32_t> bits) const;
    [[nodiscard]] Result<void> accept_free(std::string_view bytes);
    [[nodiscard]] int state() const { return stator_guide_state(machine.get()); }
};

/// Blanks that the grammar does not want are what models write between a mark and the answer.
bool Guide::Impl::fits(std::string_view rest, bool commit) const {
    for (const std::string_view text : {rest, without_leading_blanks(rest)}) {
        if (text.empty()) return true;
        OwnedText why;
        if (stator_guide_text(machine.get(), text.data(), text.size(), commit ? 1 : 0, why.out()) ==
            STATOR_GUIDE_OK) {
            return true;
        }
    }
    return false;
}

Result<void> Guide::Impl::try_first_mask() const {
    const std::unique_ptr<StatorGuide, FreeGuide> copy(stator_guide_clone(machine.get()));
    if (!copy) return compile_error(STATOR_GUIDE_PANIC, "it could not be copied");
    std::vector<std::uint32_t> bits(vocabulary->size() / 32 + 1);
    OwnedText why;
    const auto status = stator_guide_mask(copy.get(), bits.data(), bits.size(), why.out());
    if (status != STATOR_GUIDE_OK) return compile_error(status, why.view());
    return {};
}

void Guide::Impl::mask_free(std::span<std::uint32_t> bits) const {
    std::ranges::fill(bits, 0U);
    const std::uint32_t n = vocabulary->size();
    const std::size_t whole = std::min<std::size_t>(n / 32, bits.size());
    std::fill_n(bits.begin(), whole, kAllBits);
    for (TokenId token = static_cast<TokenId>(whole * 32); token < n; ++token) {
        set_bit(bits, token, true);
    }
    for (const TokenId token : vocabulary->end_tokens()) set_bit(bits, token, false);
    for (const TokenId token : mark->overhanging()) {
        std::size_t at = matched;
        const auto rest = mark->take(vocabulary->bytes(token), at);
        if (rest && !fits(*rest, false)) set_bit(bits, token, false);
    }
}

Result<void> Guide::Impl::accept_free(std::string_view bytes) {
    const auto rest = mark->take(bytes, matched);
    if (!rest) return {};
    free = false;
    if (fits(*rest, true)) return {};
    return step_error(STATOR_GUIDE_REJECTED, "text behind the end mark does not fit");
}

Guide::Guide(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Guide::Guide(Guide&&) noexcept = default;
Guide& Guide::operator=(Guide&&) noexcept = default;
Guide::~Guide() = default;

Result<Guide> Guide::copy() const {
    auto impl = std::make_unique<Impl>();
    impl->machine.reset(stator_guide_clone(impl_->machine.get()));
    if (!impl->machine) return step_error(STATOR_GUIDE_PANIC, "it could not be copied");
    impl->vocabulary = impl_->vocabulary;
    impl->mark = impl_->mark;
    impl->matched = impl_->matched;
    impl->free = impl_->free;
    return Guide(std::move(impl));
}

Result<void> Guide::mask(std::span<std::uint32_t> bits) {
    if (impl_->free) {
        impl_->mask_free(bits);
        return {};
    }
    OwnedText why;
    const auto status =
        stator_guide_mask(impl_->machine.get(), bits.data(), bits.size(), why.out());
    if (status != STATOR_GUIDE_OK) return step_error(status, why.view());
    return {};
}

Result<void> Guide::accept(TokenId token) {
    if (impl_->free) return impl_->accept_free(impl_->vocabulary->bytes(token));
    OwnedText why;
    const auto status = stator_guide_accept(impl_->machine.get(), token, why.out());
    if (status != STATOR_GUIDE_OK) return step_error(status, why.view());
    return {};
}

bool Guide::may_end() const { return !impl_->free && impl_->state() >= 1; }
bool Guide::finished() const { return !impl_->free && impl_->state() == 2; }

struct GuideFactory::Impl {
    std::unique_ptr<StatorGuides, FreeGuides> guides;
    std::shared_ptr<const Vocabulary> vocabulary;
};

GuideFactory::GuideFactory(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GuideFactory::~GuideFactory() = default;

Result<std::shared_ptr<const GuideFactory>> GuideFactory::make(const Tokenizer& tokenizer) {
    auto impl = std::make_unique<Impl>();
    impl->vocabulary = std::make_shared<const Vocabulary>(tokenizer);
    const Vocabulary& v = *impl->vocabulary;
    StatorGuides* guides = nullptr;
    OwnedText why;
    const auto status = stator_guides_new(v.all_bytes().data(), v.offsets().data(),
                                          v.kinds().data(), v.size(), &guides, why.out());
    impl->guides.reset(guides);
    if (status != STATOR_GUIDE_OK) {
        return error(ErrorCode::kUnsupported,
                     "constraints on the output are not possible with this vocabulary: {}",
                     why.view());
    }
    return std::shared_ptr<const GuideFactory>(new GuideFactory(std::move(impl)));
}

Result<Guide> GuideFactory::compile(const protocol::OutputConstraint& constraint) const {
    if (constraint.text.size() > protocol::kMaxConstraintBytes) {
        return param_error(kParam, "the constraint has {} bytes; at most {} are allowed",
                           constraint.text.size(), protocol::kMaxConstraintBytes);
    }
    if (constraint.after.size() > protocol::kMaxAfterBytes) {
        return param_error(kParam, "the end mark has {} bytes; at most {} are allowed",
                           constraint.after.size(), protocol::kMaxAfterBytes);
    }
    StatorGuide* machine = nullptr;
    OwnedText why;
    const auto status =
        stator_guide_compile(impl_->guides.get(), static_cast<std::uint32_t>(constraint.kind),
                             constraint.text.data(), constraint.text.size(), &machine, why.out());
    auto impl = std::make_unique<Guide::Impl>();
    impl->machine.reset(machine);
    if (status != STATOR_GUIDE_OK) return compile_error(status, why.view());
    impl->vocabulary = impl_->vocabulary;
    if (auto ok = impl->try_first_mask(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    if (!constraint.after.empty()) {
        impl->mark = std::make_shared<const EndMark>(constraint.after, *impl_->vocabulary);
        impl->free = true;
    }
    return Guide(std::move(impl));
}

std::uint32_t GuideFactory::vocab_size() const { return impl_->vocabulary->size(); }

}  // namespace stator::text
