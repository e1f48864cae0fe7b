#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/text/tokenizer.h"

namespace stator::text {

/// Says which tokens may come next in one text that must obey a protocol::OutputConstraint.
/// Made by a GuideFactory; movable; one thread at a time. Errors have `param` = "constraint" and
/// are kInvalidArgument where the constraint is to blame, kInternal where we are; after one the
/// guide is of no more use.
class Guide {
  public:
    Guide(Guide&&) noexcept;
    Guide& operator=(Guide&&) noexcept;
    ~Guide();

    /// At the same point of the same text. Copies share what they learn about the grammar, under a
    /// lock, and are used from different threads as they like.
    [[nodiscard]] Result<Guide> copy() const;

    /// Bit t % 32 of bits[t / 32] becomes whether token t may come next, for every bit of `bits`
    /// (words for the whole vocabulary; a longer buffer's rest becomes 0). End tokens may where the
    /// text may end. All bits are 0 exactly where finished(). kInvalidArgument: the constraint
    /// allows no token here, or a bound of time or memory is met.
    [[nodiscard]] Result<void> mask(std::span<std::uint32_t> bits);

    /// The text goes on with `token`, which is none that ends it. kInternal where it does not fit.
    [[nodiscard]] Result<void> accept(TokenId token);

    /// The text so far may be all of it.
    [[nodiscard]] bool may_end() const;
    /// … and nothing can follow.
    [[nodiscard]] bool finished() const;

  private:
    friend class GuideFactory;
    struct Impl;
    explicit Guide(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Makes guides for one vocabulary: the part that is worked out once per model. Some 25 MB and
/// 0.2 s for a vocabulary of 49,000 tokens, in proportion for others. Immutable, thread-safe;
/// guides may outlive it.
class GuideFactory {
  public:
    /// Copies what it needs of the tokenizer.
    [[nodiscard]] static Result<std::shared_ptr<const GuideFactory>> make(
        const Tokenizer& tokenizer);
    ~GuideFactory();
    GuideFactory(const GuideFactory&) = delete;
    GuideFactory& operator=(const GuideFactory&) = delete;

    /// A guide at the beginning of a text. From 0.1 ms to some 100 ms, for very large schemas
    /// seconds; bounded in time and memory, whatever the constraint. Schemas fetch nothing: a
    /// `$ref` to another document is an error. kInvalidArgument: the constraint is malformed,
    /// contradictory, beyond what the grammar engine knows, or too complex.
    [[nodiscard]] Result<Guide> compile(const protocol::OutputConstraint& constraint) const;

    [[nodiscard]] std::uint32_t vocab_size() const;

  private:
    struct Impl;
    explicit GuideFactory(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::text
