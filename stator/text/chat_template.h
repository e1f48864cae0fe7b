#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::text {

/// A model's Jinja chat template, compiled once, in the environment that Transformers gives
/// templates: trim_blocks and lstrip_blocks, loop controls, raise_exception(), strftime_now(),
/// Python's json.dumps as `tojson`, Python's methods of strings, lists and dicts, `{% generation
/// %}`. Rendering is bounded in steps, recursion and output size; a template can neither read files
/// nor call out. Thread-safe.
class ChatTemplate {
  public:
    struct Limits {
        /// One step is one instruction of the template or 64 bytes of data it makes.
        std::uint64_t max_steps = 2'000'000;
        std::uint64_t max_output_bytes = 64ULL * 1024 * 1024;
    };

    /// kInvalidArgument with the template's line where it does not compile. `bos`/`eos` become
    /// bos_token/eos_token.
    [[nodiscard]] static Result<ChatTemplate> compile(std::string_view source, std::string_view bos,
                                                      std::string_view eos, Limits limits);
    [[nodiscard]] static Result<ChatTemplate> compile(std::string_view source, std::string_view bos,
                                                      std::string_view eos) {
        return compile(source, bos, eos, Limits{});
    }

    /// Renders with the variables of `context_json`, a JSON object: messages,
    /// add_generation_prompt, tools, … as Transformers names them. A string that is text_mark(i)
    /// stands for texts[i], which saves writing long texts as JSON. `unix_seconds` is what
    /// strftime_now() shows, in UTC; without it that function is undefined, and templates fall back
    /// to a date of their own. An error raised by the template, for want of a variable or for a
    /// value of the wrong kind is kInvalidArgument with the template's own words: the client's 400.
    /// kTooLarge at the limits.
    [[nodiscard]] Result<std::string> render(
        std::string_view context_json, std::optional<std::int64_t> unix_seconds = std::nullopt,
        std::span<const std::string> texts = {}) const;

    /// U+FDD0, with which no guarded text begins (special_guard.h), and the number.
    [[nodiscard]] static std::string text_mark(std::size_t text);

    ~ChatTemplate();
    ChatTemplate(ChatTemplate&&) noexcept;
    ChatTemplate& operator=(ChatTemplate&&) noexcept;

  private:
    struct Impl;
    explicit ChatTemplate(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::text
