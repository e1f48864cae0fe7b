#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/tokenizer.h"

namespace stator::text {

/// What becomes of control tokens ("<|channel|>") in a text.
enum class ControlTokens : std::uint8_t {
    kHidden,   ///< they are no text
    kSpelled,  ///< as the vocabulary spells them, but for those that end a generation: for a parser
};

/// Tokens to text, one at a time, for one generation: joins byte pieces, holds back the unfinished
/// tail of a UTF-8 character (at most 3 bytes) and whatever may still become a stop string, and
/// nothing else. The text does not depend on how it was split into tokens. Amortised O(1) per byte
/// and stop string. Not thread-safe; the tokenizer must outlive it.
class Detokenizer {
  public:
    /// `stop`: texts that end the generation; not part of the output. An empty one never matches.
    /// `begins_text`: the tokens are all of a text and not what goes on behind a prompt.
    Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stop,
                ControlTokens control = ControlTokens::kHidden, bool begins_text = false);

    /// Takes one token and appends what became certain to `out` (valid UTF-8; ill-formed bytes
    /// become U+FFFD). True once a stop string is complete: `out` then ends right before it, and
    /// nothing more must be pushed. The stop string that is complete first counts; of several that
    /// end together, the longest.
    bool push(TokenId token, std::string& out);

    /// End of the generation without a stop string: appends what was held back. (An unfinished
    /// character becomes U+FFFD here, which a stop string may hold: then, too, stop_index() says
    /// so.)
    void finish(std::string& out);

    /// Which stop string was met; -1 = none.
    [[nodiscard]] int stop_index() const { return stop_index_; }

  private:
    /// Searches one stop string in the text as it comes (Knuth, Morris, Pratt).
    struct Matcher {
        std::string text;
        std::vector<std::uint32_t>
            border;               ///< per prefix: its longest proper prefix that is also its suffix
        std::size_t matched = 0;  ///< how much of `text` the text so far ends with

        explicit Matcher(std::string t);
        bool push(char byte);
    };

    bool feed(std::string_view text, std::string& out);
    [[nodiscard]] std::size_t before_stop(std::string_view text) const;
    bool search(std::size_t from);
    bool step(std::size_t at);
    void release(std::string& out);

    const Tokenizer& tokenizer_;
    ControlTokens control_;
    std::vector<Matcher> stops_;
    std::array<bool, 256> begins_stop_{};  ///< first bytes of stop strings
    std::string bytes_;                    ///< bytes that are not whole characters yet
    std::string whole_;                    ///< scratch: characters that bytes_ became
    std::string pending_;  ///< whole characters; those from released_ on may begin a stop string
    std::size_t released_ = 0;  ///< how much of pending_ has been given out
    std::size_t held_ = 0;      ///< how many bytes at the end of pending_ begin a stop string
    bool begins_text_;
    int stop_index_ = -1;
};

}  // namespace stator::text
