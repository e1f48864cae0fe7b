#include "stator/planner/profile.h"

#include <cmath>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"

namespace stator::planner {
namespace {

using codec::JsonView;

constexpr double kLongest_s = 86'400;
constexpr double kMost = 1e15;

std::optional<Role> role_named(std::string_view name) {
    for (const Role role : kRoles) {
        if (name == protocol::to_string(role)) return role;
    }
    return std::nullopt;
}

/// A field that may be missing; else a number from 0 to `most`.
Result<void> number(JsonView object, std::string_view role, std::string_view name, double most,
                    double& value) {
    const JsonView field = object.find(name);
    if (!field.present()) return {};
    const auto n = field.as_double();
    if (!n || !std::isfinite(*n) || *n < 0 || *n > most) {
        return error(ErrorCode::kInvalidArgument,
                     "roles.{}.{} of the profile must be a number from 0 to {}.", role, name, most);
    }
    value = *n;
    return {};
}

Result<RoleProfile> read_role(std::string_view role, JsonView object) {
    if (object.type() != codec::JsonType::kObject) {
        return error(ErrorCode::kInvalidArgument, "roles.{} of the profile must be an object.",
                     role);
    }
    RoleProfile p;
    double step_tokens = p.step_tokens;
    double max_running = 0;
    double kv_tokens = 0;
    struct Field {
        std::string_view name;
        double most;
        double* value;
    };
    for (const Field& f :
         {Field{"base_s", kLongest_s, &p.cost.base_s},
          Field{"prefill_token_s", kLongest_s, &p.cost.prefill_token_s},
          Field{"decode_token_s", kLongest_s, &p.cost.decode_token_s},
          Field{"image_s", kLongest_s, &p.cost.image_s}, Field{"step_tokens", 1e9, &step_tokens},
          Field{"max_running", 1e9, &max_running}, Field{"kv_tokens", kMost, &kv_tokens},
          Field{"start_up_s", kLongest_s, &p.start_up_s}}) {
        if (auto ok = number(object, role, f.name, f.most, *f.value); !ok) {
            return tl::unexpected(std::move(ok.error()));
        }
    }
    if (step_tokens < 1) {
        return error(ErrorCode::kInvalidArgument,
                     "roles.{}.step_tokens of the profile must be at least 1.", role);
    }
    p.step_tokens = static_cast<std::uint32_t>(step_tokens);
    p.max_running = static_cast<std::uint32_t>(max_running);
    p.kv_tokens = static_cast<std::uint64_t>(kv_tokens);
    return p;
}

}  // namespace

Result<Profile> read_profile(std::string_view json) {
    if (json.size() > kMaxProfileBytes) {
        return error(ErrorCode::kTooLarge, "The profile has {} bytes; at most {} are read.",
                     json.size(), kMaxProfileBytes);
    }
    codec::JsonDocument document;
    auto root = document.parse(json);
    if (!root) return tl::unexpected(std::move(root.error()));
    if (root->find("schema").as_string() != "stator-profile/1") {
        return error(ErrorCode::kInvalidArgument,
                     "The profile's \"schema\" must be \"stator-profile/1\".");
    }
    Profile profile;
    profile.engine = std::string(root->find("engine").as_string().value_or(""));
    profile.source = std::string(root->find("source").as_string().value_or(""));
    Result<void> problem;
    root->find("roles").each_member([&](std::string_view name, JsonView value) {
        const auto role = role_named(name);
        if (!role) {
            problem = error(ErrorCode::kInvalidArgument,
                            "The profile's roles are aggregated, prefill, decode and encode; "
                            "\"{}\" is none of them.",
                            name);
            return false;
        }
        auto read = read_role(name, value);
        if (!read) {
            problem = tl::unexpected(std::move(read.error()));
            return false;
        }
        profile.roles[*role] = *read;
        return true;
    });
    if (!problem) return tl::unexpected(std::move(problem.error()));
    return profile;
}

std::string write_profile(const Profile& profile) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("schema").string("stator-profile/1");
    w.key("engine").string(profile.engine).key("source").string(profile.source);
    w.key("roles").begin_object();
    for (const Role role : kRoles) {
        const auto& p = profile.roles[role];
        if (!p) continue;
        w.key(protocol::to_string(role)).begin_object();
        w.key("base_s").number(p->cost.base_s);
        w.key("prefill_token_s").number(p->cost.prefill_token_s);
        w.key("decode_token_s").number(p->cost.decode_token_s);
        w.key("image_s").number(p->cost.image_s);
        w.key("step_tokens").number(static_cast<std::uint64_t>(p->step_tokens));
        w.key("max_running").number(static_cast<std::uint64_t>(p->max_running));
        w.key("kv_tokens").number(p->kv_tokens);
        w.key("start_up_s").number(p->start_up_s);
        w.end_object();
    }
    w.end_object().end_object();
    out += '\n';
    return out;
}

}  // namespace stator::planner
