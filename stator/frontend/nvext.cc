#include "stator/frontend/nvext.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;

constexpr std::size_t kMaxSalt = 4096;

/// The members of an object within the body. Errors name the whole path and go to the reader of the
/// body.
class Part {
  public:
    Part(FieldReader& fields, JsonView object, std::string path)
        : fields_(fields), object_(object), path_(std::move(path)) {}

    /// Null where it is absent or no object.
    [[nodiscard]] std::optional<Part> part(std::string_view name) {
        const JsonView v = object_.find(name);
        if (v.is_null()) return std::nullopt;
        if (v.type() == JsonType::kObject) return Part(fields_, v, path(name));
        wrong(name, "an object", v);
        return std::nullopt;
    }
    [[nodiscard]] std::optional<std::int64_t> integer(std::string_view name, std::int64_t low,
                                                      std::int64_t high) {
        const JsonView v = object_.find(name);
        if (v.is_null()) return std::nullopt;
        const auto n = v.as_int();
        if (n && *n >= low && *n <= high) return n;
        wrong(name, fmt::format("a whole number from {} to {}", low, high), v);
        return std::nullopt;
    }
    [[nodiscard]] std::string word(std::string_view name, std::size_t most) {
        const JsonView v = object_.find(name);
        if (v.is_null()) return {};
        const auto text = v.as_string();
        if (text && text->size() <= most) return std::string(*text);
        wrong(name, fmt::format("a string of at most {} bytes", most), v);
        return {};
    }
    /// The reference's workers have numbers, ours names.
    [[nodiscard]] std::string worker(std::string_view name) {
        const JsonView v = object_.find(name);
        if (const auto n = v.as_uint()) return std::to_string(*n);
        return word(name, kMaxHintBytes);
    }
    [[nodiscard]] bool flag(std::string_view name) {
        const JsonView v = object_.find(name);
        if (v.is_null()) return false;
        const auto set = v.as_bool();
        if (!set) wrong(name, "true or false", v);
        return set.value_or(false);
    }
    void refuse(std::string_view name) {
        const JsonView v = object_.find(name);
        if (v.is_null() || v.as_bool() == false) return;
        auto e = error(ErrorCode::kUnsupported, "{} is not served here; leave it out", path(name));
        e.value().param = path(name);
        fields_.fail(std::move(e));
    }
    [[nodiscard]] std::vector<tokens::TokenId> tokens(std::string_view name,
                                                      const RequestRules& rules) {
        std::vector<tokens::TokenId> out;
        const JsonView v = object_.find(name);
        if (v.is_null()) return out;
        if (v.type() != JsonType::kArray || v.size() == 0) {
            wrong(name, "a non-empty array of token ids", v);
            return out;
        }
        out.reserve(v.size());
        v.each_element([&](std::size_t i, JsonView one) {
            auto id = read_token_id(one, path(name), fmt::format("{}[{}]", path(name), i), rules);
            if (id) {
                out.push_back(*id);
            } else {
                fields_.fail(tl::unexpected<Error>(std::move(id.error())));
            }
            return fields_.ok();
        });
        return out;
    }

  private:
    [[nodiscard]] std::string path(std::string_view name) const {
        return fmt::format("{}.{}", path_, name);
    }
    void wrong(std::string_view name, std::string_view what, JsonView value) {
        fields_.fail_type(path(name), what, value);
    }

    FieldReader& fields_;
    JsonView object_;
    std::string path_;
};

void read_agent_hints(Part& hints, BodyHints& out) {
    using Priority = std::numeric_limits<std::int32_t>;
    const auto priority = hints.integer("priority", Priority::min(), Priority::max());
    const auto strict = hints.integer("strict_priority", 0, Priority::max());
    // Ours is always strict between classes.
    if (strict.value_or(0) != 0) {
        out.priority = static_cast<std::int32_t>(*strict);
    } else if (priority) {
        out.priority = static_cast<std::int32_t>(*priority);
    }
    out.expected_output_tokens =
        static_cast<std::uint32_t>(hints.integer("osl", 1, kMaxHintOutput).value_or(0));
}

}  // namespace

void read_body_hints(FieldReader& fields, const RequestRules& rules, BodyHints& out) {
    if (const auto salt = fields.string("cache_salt")) {
        if (salt->size() > kMaxSalt) {
            return fields.fail(param_error("cache_salt",
                                           "cache_salt is {} bytes long; at most {} are allowed",
                                           salt->size(), kMaxSalt));
        }
        out.cache_salt = *salt;
    }
    const auto object = fields.object("nvext", "an object");
    if (!object) return;
    Part nvext(fields, *object, "nvext");
    out.worker = nvext.worker("backend_instance_id");
    if (out.worker.empty()) out.worker = nvext.worker("decode_worker_id");
    if (const auto rank = nvext.integer("dp_rank", 0, kMaxHintRank)) {
        out.rank = static_cast<std::uint32_t>(*rank);
    }
    if (auto salt = nvext.word("cache_salt", kMaxSalt); !salt.empty()) {
        out.cache_salt = std::move(salt);
    }
    out.greedy = nvext.flag("greed_sampling");
    out.prompt_tokens = nvext.tokens("token_data", rules);
    nvext.refuse("use_raw_prompt");
    nvext.refuse("max_thinking_tokens");
    if (auto hints = nvext.part("agent_hints")) read_agent_hints(*hints, out);
    if (auto session = nvext.part("session_control")) {
        out.session = session->word("session_id", kMaxHintBytes);
    }
}

}  // namespace stator::frontend
