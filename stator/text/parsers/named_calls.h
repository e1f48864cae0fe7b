#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/json_call.h"
#include "stator/text/parsers/sectioned_calls.h"

namespace stator::text {

/// A family that writes a function's name between marks and its arguments as JSON behind it.
struct NamedCallFamily {
    std::string_view section_open = {};   ///< stands before the first call; empty: nothing does
    std::string_view section_close = {};  ///< stands behind the last
    std::string_view call_open = {};      ///< empty: the section's mark is the call's
    std::string_view kind_end = {};       ///< what comes before it is the call's type, no matter
    /// What the name ends with; "{" is left for the arguments.
    std::vector<std::string_view> name_ends = {};
    /// Of the name's ends, the one behind which an id stands before `name_ends[0]`.
    std::string_view id_open = {};
    std::string_view before_arguments = {};  ///< may stand there, with white space
    std::string_view after_arguments = {};   ///< likewise
    std::string_view call_close = {};
    /// The section's mark may also begin an object or array as JsonCallList reads it.
    bool lists = false;
    /// What the function is called, of what stands as its name: "functions.f:0" is f.
    std::string_view (*plain_name)(std::string_view name) = nullptr;
};

class NamedCalls final : public SectionedCalls {
  public:
    explicit NamedCalls(const NamedCallFamily& family);

  private:
    enum class State : std::uint8_t {
        kProse,
        kSection,
        kKind,
        kName,
        kId,
        kBefore,
        kArguments,
        kAfter,
        kClose,
        kList,
    };

    bool step(Input& in, OutputEvents& out) override;
    bool between(Input& in, OutputEvents& out);
    bool section(Input& in, OutputEvents& out);
    bool kind(Input& in, OutputEvents& out);
    bool name(Input& in, OutputEvents& out);
    bool id(Input& in, OutputEvents& out);
    bool before(Input& in, OutputEvents& out);
    bool arguments(Input& in, OutputEvents& out);
    bool after(Input& in, OutputEvents& out);
    bool close(Input& in, OutputEvents& out);
    bool list(Input& in, OutputEvents& out);
    bool refuse(OutputEvents& out);
    bool begin_name();
    bool to(State state) {
        state_ = state;
        return true;
    }

    NamedCallFamily family_;
    MarkSet name_ends_;
    State state_ = State::kProse;
    bool filler_taken_ = false;
    bool name_ended_ = false;
    std::size_t read_ = 0;  ///< bytes of a call's type or id
    std::string name_;
    JsonScan scan_;
    JsonCallList list_;
};

}  // namespace stator::text
