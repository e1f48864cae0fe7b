#pragma once

#include <cstdint>
#include <string_view>

#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// What calls stand between. Empty: there is no such mark.
struct CallMarks {
    std::string_view section_open = {};  ///< stands before the first call
    std::string_view section_close = {};
    std::string_view call_open = {};  ///< empty: the section's mark is the call's
    std::string_view call_close = {};
    bool calls_without_section = true;  ///< a call may stand where no section was opened
};

/// Calls between marks, perhaps several in a section: the way in and the way out, which families
/// share whatever they write in between.
class SectionedCalls : public ToolParser {
  protected:
    explicit SectionedCalls(const CallMarks& marks);

    enum class Next : std::uint8_t { kMore, kProse, kSection, kCall };
    /// Reads content up to a mark. kSection: a call's own mark must follow; kCall: the call does.
    [[nodiscard]] Next enter(Input& in, OutputEvents& out);
    /// Behind a call in a section: kCall, another one; kProse, the section has ended.
    [[nodiscard]] Next behind_call(Input& in, OutputEvents& out);
    /// What was held is no call.
    void refuse_held(OutputEvents& out);

    CallMarks marks_;
    MarkSet in_section_;  ///< a call's mark or the section's end
    bool in_section_now_ = false;
    bool close_due_ = false;  ///< a closing mark that comes late is no content

  private:
    MarkSet begins_;            ///< in prose: section or call
    MarkSet begins_or_closes_;  ///< the same while a closing mark is due
};

}  // namespace stator::text
