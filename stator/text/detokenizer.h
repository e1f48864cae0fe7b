#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/tokenizer.h"

namespace stator::text {

/// Tokens to text, one at a time, for one generation: joins byte pieces, holds back the unfinished tail of a UTF-8
/// character (at most 3 bytes) and whatever may still become a stop string. Amortised O(1) per byte.
/// Not thread-safe; the tokenizer must outlive it.
class Detokenizer {
 public:
    /// `stop`: texts that end the generation; not part of the output. Empty strings are not allowed.
    Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stop);

    /// Takes one token and appends what became certain to `out` (valid UTF-8; ill-formed bytes become U+FFFD). True once
    /// a stop string is complete: `out` then ends right before it, and nothing more must be pushed.
    bool push(TokenId token, std::string& out);

    /// End of the generation without a stop string: appends what was held back.
    void finish(std::string& out);

    /// Which stop string was met; -1 = none.
    [[nodiscard]] int stop_index() const { return stop_index_; }

 private:
    bool emit(std::string& out);

    const Tokenizer& tokenizer_;
    std::vector<std::string> stop_;
    std::size_t longest_stop_ = 0;
    std::string bytes_;    ///< bytes that are not whole characters yet
    std::string pending_;  ///< whole characters that may begin a stop string
    int stop_index_ = -1;
};

}  // namespace stator::text
