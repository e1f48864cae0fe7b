#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stator::gateway {

/// The JSON object with another value of its member "model", all else as it was, byte for byte.
/// None where it has no such member that is a string, or is no object.
[[nodiscard]] std::optional<std::string> with_model(std::string_view object,
                                                    std::string_view model);

/// Replaces a model's name where an answer has it as the member "model", in JSON or in events of
/// JSON, whatever pieces the answer comes in. Text that an answer quotes is not touched: its
/// quotation marks are escaped.
class ModelRenamer {
  public:
    ModelRenamer(std::string_view from, std::string_view to);
    /// The next piece, as far as it can go on; the rest is kept until it is clear what it is.
    [[nodiscard]] std::string take(std::string_view piece);
    /// What is kept, at the end.
    [[nodiscard]] std::string finish();

  private:
    std::vector<std::string> patterns_;
    std::vector<std::string> replacements_;
    std::string kept_;
};

}  // namespace stator::gateway
