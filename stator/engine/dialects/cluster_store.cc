#include "stator/engine/dialects/cluster_store.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"

namespace stator::engine {

using codec::JsonView;
using Answer = ClusterStore::Answer;

namespace {

constexpr std::string_view kWorkers = "/workers/";
constexpr int kBadRequest = 400;
/// Longer than any heartbeat.
constexpr double kMostSeconds = 7.0 * 24 * 3600;

Answer result(bool good) {
    return {good ? 200 : kBadRequest, good ? R"({"result":true})" : R"({"result":false})"};
}

int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

std::optional<std::string> decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '+') {
            out += ' ';
        } else if (text[i] != '%') {
            out += text[i];
        } else {
            const int high = i + 2 < text.size() ? digit_of(text[i + 1]) : -1;
            const int low = i + 2 < text.size() ? digit_of(text[i + 2]) : -1;
            if (high < 0 || low < 0) return std::nullopt;
            out += static_cast<char>(high * 16 + low);
            i += 2;
        }
    }
    return out;
}

std::optional<double> seconds_of(std::string_view text) {
    double v = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return v;
}

/// Not above zero: for ever.
Deadline after(TimePoint now, double seconds) {
    if (!(seconds > 0)) return Deadline::never();
    return Deadline::after(now, std::chrono::milliseconds(static_cast<std::int64_t>(
                                    std::min(seconds, kMostSeconds) * 1000)));
}

std::optional<ClusterStore::Worker> worker_of(std::string_view text) {
    codec::JsonDocument document;
    const auto root = document.parse(text);
    if (!root) return std::nullopt;
    ClusterStore::Worker out;
    const auto id = root->find("worker_id").as_string();
    const auto host = root->find("host").as_string();
    const auto port = root->find("port").as_uint();
    const JsonView role = root->find("role");
    if (!id || !host || host->empty() || !port || *port == 0 || *port > UINT16_MAX) {
        return std::nullopt;
    }
    const auto good = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '.' || c == '-' || c == '_' || c == ':';
    };
    if (!std::ranges::all_of(*host, good)) return std::nullopt;
    out.id = std::string(*id);
    out.host = std::string(*host);
    out.port = static_cast<std::uint16_t>(*port);
    const auto number = role.as_int();
    const auto word = role.as_string().value_or("");
    if (number == 0 || word == "CONTEXT" || word == "context") {
        out.role = ClusterStore::Role::kContext;
    } else if (number == 1 || word == "GENERATION" || word == "generation") {
        out.role = ClusterStore::Role::kGeneration;
    } else {
        return std::nullopt;
    }
    return out;
}

}  // namespace

std::optional<std::string> query_value(std::string_view target, std::string_view name) {
    const std::size_t begin = target.find('?');
    if (begin == std::string_view::npos) return std::nullopt;
    std::string_view left = target.substr(begin + 1);
    while (!left.empty()) {
        const std::string_view part = left.substr(0, left.find('&'));
        left.remove_prefix(std::min(left.size(), part.size() + 1));
        const std::size_t equals = part.find('=');
        if (equals != std::string_view::npos && part.substr(0, equals) == name) {
            return decoded(part.substr(equals + 1));
        }
    }
    return std::nullopt;
}

void ClusterStore::drop_old(TimePoint now) {
    std::erase_if(values_, [now](const auto& v) { return v.second.until.reached(now); });
}

bool ClusterStore::set(std::string_view body, TimePoint now, double unix_seconds) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return false;
    const auto key = root->find("key").as_string();
    const JsonView given = root->find("value");
    std::string value;
    if (const auto text = given.as_string()) {
        value = *text;
    } else {
        given.write_to(value);
    }
    if (!key || key->empty() || key->size() > kMostKeyBytes || value.size() > kMostValueBytes) {
        return false;
    }
    const bool there = values_.contains(*key);
    if (there && !root->find("overwrite_if_exists").as_bool().value_or(false)) return false;
    if (!there && values_.size() >= kMostKeys) return false;
    double seconds = root->find("ttl").as_double().value_or(-1);
    const double at = root->find("expire_time").as_double().value_or(-1);
    if (seconds <= 0 && at > 0) {
        seconds = at - unix_seconds;
        if (seconds <= 0) return false;
    }
    values_[std::string(*key)] = {std::move(value), after(now, seconds)};
    return true;
}

Answer ClusterStore::get_prefix(std::string_view prefix, bool keys_only) const {
    Answer out;
    codec::JsonWriter w(out.body);
    w.begin_object().key("result").begin_object();
    bool any = false;
    for (auto at = values_.lower_bound(prefix);
         at != values_.end() && at->first.starts_with(prefix); ++at) {
        any = true;
        w.key(at->first).string(keys_only ? std::string_view() : std::string_view(at->second.text));
    }
    w.end_object().end_object();
    if (!any) out.status = kBadRequest;
    return out;
}

Answer ClusterStore::handle(std::string_view method, std::string_view target, std::string_view body,
                            TimePoint now, double unix_seconds) {
    drop_old(now);
    const std::string_view path = target.substr(0, target.find('?'));
    if (path == "/set" && method == "POST") return result(set(body, now, unix_seconds));
    if (path == "/get_prefix" && method == "GET") {
        const auto only = query_value(target, "keys_only").value_or("");
        return get_prefix(query_value(target, "key_prefix").value_or(""),
                          only == "true" || only == "True" || only == "1");
    }
    if (path == "/cluster_info" && method == "GET") {
        const auto all = workers(now);
        const auto context = std::ranges::count(all, Role::kContext, &Worker::role);
        Answer out;
        codec::JsonWriter w(out.body);
        w.begin_object().key("current_workers").begin_object();
        w.key("context_servers").number(std::int64_t{context});
        w.key("generation_servers").number(static_cast<std::int64_t>(all.size()) - context);
        w.end_object().end_object();
        return out;
    }
    const bool gets = method == "GET" && (path == "/get" || path == "/expire");
    const bool deletes = method == "DELETE" && path == "/delete";
    if (!gets && !deletes) return {404, R"({"error":{"message":"this is a store of workers"}})"};
    const auto at = values_.find(query_value(target, "key").value_or(""));
    if (at == values_.end()) return result(false);
    if (deletes) {
        values_.erase(at);
        return result(true);
    }
    if (path == "/expire") {
        const auto seconds = seconds_of(query_value(target, "ttl").value_or(""));
        if (!seconds) return result(false);
        at->second.until = after(now, *seconds);
        return result(true);
    }
    Answer out;
    codec::JsonWriter w(out.body);
    w.begin_object().key("result").string(at->second.text).end_object();
    return out;
}

std::vector<ClusterStore::Worker> ClusterStore::workers(TimePoint now) {
    drop_old(now);
    std::vector<Worker> out;
    for (const auto& [key, value] : values_) {
        if (key.find(kWorkers) == std::string::npos) continue;
        if (auto worker = worker_of(value.text)) out.push_back(std::move(*worker));
    }
    return out;
}

}  // namespace stator::engine
