#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// Gemma's own notation: call:f{place:<|"|>Bern<|"|>,days:2,more:{a:[true]}} between marks. Keys
/// stand bare, strings between marks of their own.
struct GemmaCallFamily {
    std::string_view open;
    std::string_view close;
    std::string_view quote;
};

class GemmaCalls final : public ToolParser {
  public:
    explicit GemmaCalls(const GemmaCallFamily& family);

  private:
    enum class State : std::uint8_t {
        kProse,
        kOpened,  // "call:" comes
        kName,
        kFirstKey,
        kKey,
        kFirstItem,
        kItem,
        kString,
        kToken,
        kAfter,
        kClose,
    };

    bool step(Input& in, OutputEvents& out) override;
    bool between(Input& in, OutputEvents& out);
    bool opened(Input& in, OutputEvents& out);
    bool name(Input& in, OutputEvents& out);
    bool key(Input& in, OutputEvents& out);
    bool item(Input& in, OutputEvents& out);
    bool string(Input& in, OutputEvents& out);
    bool token(Input& in, OutputEvents& out);
    bool after(Input& in, OutputEvents& out);
    bool close(Input& in, OutputEvents& out);
    bool end_container(Input& in, OutputEvents& out);
    bool abandon();
    bool refuse(OutputEvents& out);
    void write(std::string_view json, OutputEvents& out) { calls_.arguments(out, json); }
    bool to(State state) {
        state_ = state;
        return true;
    }

    GemmaCallFamily family_;
    MarkSet opens_;
    MarkSet opens_or_closes_;
    MarkSet quotes_;
    State state_ = State::kProse;
    bool close_due_ = false;
    bool quoted_key_ = false;
    std::string name_;
    std::string text_;     ///< a key or a bare value
    std::string closers_;  ///< what closes each container around us
};

}  // namespace stator::text
