#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::text {

/// A model's Jinja chat template, compiled once. Rendering is bounded in steps, recursion and output size; a template can
/// neither read files nor call out. Thread-safe.
class ChatTemplate {
 public:
    struct Limits {
        std::uint64_t max_steps = 2'000'000;
        std::uint64_t max_output_bytes = 64ULL * 1024 * 1024;
    };

    /// kInvalidArgument with the template's line where it does not compile. `bos`/`eos` become bos_token/eos_token.
    [[nodiscard]] static Result<ChatTemplate> compile(std::string_view source, std::string_view bos,
                                                      std::string_view eos, Limits limits);
    [[nodiscard]] static Result<ChatTemplate> compile(std::string_view source, std::string_view bos,
                                                      std::string_view eos) {
        return compile(source, bos, eos, Limits{});
    }

    /// Renders with the variables of `context_json`, a JSON object: messages, add_generation_prompt, tools, … as
    /// Transformers names them. An error raised by the template or for want of a variable is kInvalidArgument with the
    /// template's own words: the client's 400.
    [[nodiscard]] Result<std::string> render(std::string_view context_json) const;

    ~ChatTemplate();
    ChatTemplate(ChatTemplate&&) noexcept;
    ChatTemplate& operator=(ChatTemplate&&) noexcept;

 private:
    struct Impl;
    explicit ChatTemplate(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::text
