// Any constraint over a small vocabulary: the first byte chooses its kind, the second whether it
// has an end mark, the rest is its text, but for what follows a zero byte: that chooses among the
// tokens that the mask leaves. Nothing may hang, crash or contradict the mask.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/check.h"
#include "stator/text/byte_tokenizer.h"
#include "stator/text/guides/guide.h"

namespace {

using namespace stator;
using text::ByteTokenizer;

constexpr int kMaxSteps = 24;
constexpr std::size_t kMaxText = 2048;
using Bits = std::vector<std::uint32_t>;

const text::GuideFactory& factory() {
    static const auto kFactory = [] {
        auto made = text::GuideFactory::make(ByteTokenizer({"<|im_start|>"}));
        STATOR_CHECK(made.has_value(), "bytes are a vocabulary");
        return *made;
    }();
    return *kFactory;
}

bool has(const Bits& bits, tokens::TokenId token) {
    return (bits[token / 32] >> (token % 32) & 1U) != 0;
}

/// The token that the byte chooses of those the mask leaves.
std::optional<tokens::TokenId> choose(const Bits& bits, std::uint8_t byte) {
    std::vector<tokens::TokenId> allowed;
    for (tokens::TokenId t = 0; t < bits.size() * 32; ++t) {
        if (has(bits, t)) allowed.push_back(t);
    }
    if (allowed.empty()) return std::nullopt;
    return allowed[byte % allowed.size()];
}

void follow(text::Guide guide, std::string_view choices) {
    Bits bits(factory().vocab_size() / 32 + 1);
    for (int step = 0; step < kMaxSteps && !guide.finished(); ++step) {
        if (const auto ok = guide.mask(bits); !ok) {
            STATOR_CHECK(!ok.error().message.empty(), "a failure says why");
            return;
        }
        STATOR_CHECK(has(bits, ByteTokenizer::kEnd) == guide.may_end(),
                     "the end token is allowed where the text may end");
        const std::uint8_t byte =
            choices.empty() ? static_cast<std::uint8_t>(step * 37)
                            : static_cast<std::uint8_t>(
                                  choices[static_cast<std::size_t>(step) % choices.size()]);
        const auto token = choose(bits, byte);
        if (!token || *token == ByteTokenizer::kEnd) return;
        if (const auto ok = guide.accept(*token); !ok) {
            STATOR_CHECK(ok.error().code == ErrorCode::kInvalidArgument,
                         "what the mask allows is accepted, or a bound was met");
            return;
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 3 || size > kMaxText) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    protocol::OutputConstraint constraint;
    constraint.kind = static_cast<protocol::OutputConstraint::Kind>(1 + data[0] % 5);
    if (data[1] % 2 == 1) constraint.after = "</t>";
    const std::string_view rest = bytes.substr(2);
    const std::size_t zero = rest.find('\0');
    constraint.text = rest.substr(0, zero);
    auto guide = factory().compile(constraint);
    if (!guide) {
        STATOR_CHECK(guide.error().param == "constraint" && !guide.error().message.empty(),
                     "a refusal names the constraint and says why");
        return 0;
    }
    follow(std::move(*guide),
           zero == std::string_view::npos ? std::string_view() : rest.substr(zero + 1));
    return 0;
}
