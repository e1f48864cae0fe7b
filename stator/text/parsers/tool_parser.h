#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/text/parsers/json_scan.h"
#include "stator/text/parsers/marks.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::text {

/// The most that is held back while it is not known whether a text is a call (a name that comes
/// behind its arguments, say). Beyond it, it is content.
inline constexpr std::size_t kMaxHeld = 64 * 1024;
inline constexpr std::size_t kMaxName = 256;

/// Numbers the calls of an output and writes their events.
class CallWriter {
  public:
    void begin(OutputEvents& out, std::string_view name) {
        out.add(OutputEvents::Kind::kToolBegin, name, count_);
        open_ = true;
    }
    void arguments(OutputEvents& out, std::string_view piece) {
        out.add(OutputEvents::Kind::kToolArguments, piece, count_);
    }
    void end(OutputEvents& out) {
        out.add(OutputEvents::Kind::kToolEnd, {}, count_++);
        open_ = false;
    }
    /// What follows can't be arguments: the call keeps what it had, and has no end.
    void abandon() {
        if (open_) ++count_;
        open_ = false;
    }
    [[nodiscard]] bool open() const { return open_; }
    [[nodiscard]] bool any() const { return count_ > 0 || open_; }

    /// Passes on what belongs to the value that `scan` follows, unchanged but for control
    /// characters in strings, which are escaped.
    void pass(JsonScan& scan, Input& in, OutputEvents& out);

  private:
    std::uint32_t count_ = 0;
    bool open_ = false;
};

/// What parsers of calls have in common: text between calls, what is held back, and the loop that
/// makes events independent of how the text is cut. A family's step() reads the front of the input.
class ToolParser : public OutputParser {
  public:
    void push(std::string_view text, OutputEvents& out) final;
    void finish(OutputEvents& out) final;

  protected:
    /// Takes something, or changes its state, and returns true; false: more text is needed to
    /// decide. With in.last it must not ask for more. Never called without input.
    virtual bool step(Input& in, OutputEvents& out) = 0;
    /// The output has ended and all text is taken.
    virtual void end(OutputEvents& /*out*/) {}

    /// Reads content up to one of `marks` and takes that; empty: needs more. White space alone
    /// between the output's beginning, its calls and its end is no content.
    std::optional<std::size_t> prose(Input& in, const MarkSet& marks, OutputEvents& out);
    /// Takes white space at the beginning of a gap, so that in.front() is what the text begins with
    /// where gap() holds.
    void take_gap(Input& in, OutputEvents& out);
    /// Nothing but white space came since the beginning or the last call.
    [[nodiscard]] bool gap() const { return in_gap_; }
    [[nodiscard]] bool at_beginning() const { return in_gap_ && !calls_.any() && !text_; }

    /// Takes `n` bytes that may turn out to be content.
    void hold(Input& in, std::size_t n) { held_.append(in.take(n)); }
    /// Moves the gap's white space to what is held.
    void hold_gap();
    [[nodiscard]] bool held_full() const { return held_.size() >= kMaxHeld; }
    /// What was held is content after all.
    void give_back(OutputEvents& out);
    /// A call has ended: white space may follow.
    void begin_gap() {
        held_.clear();
        gap_.clear();
        in_gap_ = true;
    }

    std::string held_;
    CallWriter calls_;

  private:
    void run(Input& in, OutputEvents& out);
    void add_content(std::string_view text, OutputEvents& out);

    std::string pending_;  ///< not taken yet: part of a mark
    std::string gap_;
    bool in_gap_ = true;
    bool text_ = false;  ///< there was content
};

}  // namespace stator::text
