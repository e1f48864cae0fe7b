#include "stator/requests/messages.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "stator/codec/msgpack.h"
#include "stator/requests/fields.h"

namespace stator::requests {
namespace {

using codec::MsgpackReader;
using codec::MsgpackWriter;

constexpr std::size_t kMaxFeatures = 64;

std::string_view as_text(const Nonce& nonce) {
    return {reinterpret_cast<const char*>(nonce.data()), nonce.size()};
}

Result<void> read_nonce(MsgpackReader& r, Nonce& to) {
    auto bytes = r.binary();
    if (!bytes) return tl::unexpected(std::move(bytes.error()));
    if (bytes->size() != to.size()) {
        return error(ErrorCode::kInvalidArgument, "{} bytes, expected {}", bytes->size(),
                     to.size());
    }
    std::memcpy(to.data(), bytes->data(), to.size());
    return {};
}

Result<void> read_link_id(MsgpackReader& r, LinkId& to) {
    auto bytes = r.binary();
    if (!bytes) return tl::unexpected(std::move(bytes.error()));
    if (bytes->size() != 16) {
        return error(ErrorCode::kInvalidArgument, "{} bytes, expected 16", bytes->size());
    }
    std::memcpy(&to.high, bytes->data(), 8);
    std::memcpy(&to.low, bytes->data() + 8, 8);
    return {};
}

}  // namespace

void append_hello(std::string& out, const Hello& hello) {
    MsgpackWriter w(out);
    w.map(8 + (hello.proof ? 1 : 0));
    w.string("v").number(hello.version);
    w.string("feat").array(hello.features.size());
    for (const auto& feature : hello.features) w.string(feature);
    w.string("nonce").binary(as_text(hello.nonce));
    w.string("name");
    write_text(w, hello.name, kMaxNameBytes);
    w.string("inc").number(hello.incarnation.value);
    w.string("lane").number(static_cast<std::uint64_t>(hello.lane));
    std::array<char, 16> link{};
    std::memcpy(link.data(), &hello.link.high, 8);
    std::memcpy(link.data() + 8, &hello.link.low, 8);
    w.string("link").binary({link.data(), link.size()});
    w.string("auth").boolean(hello.secret_wanted);
    if (hello.proof) w.string("proof").binary(as_text(*hello.proof));
}

Result<Hello> read_hello(std::string_view payload) {
    Hello hello;
    bool nonce_seen = false;
    auto read = each_field_of(payload, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "v") return read_value(r, hello.version);
        if (key == "feat") {
            return read_array(r, hello.features, kMaxFeatures, [](auto& reader, auto& feature) {
                return read_text(reader, feature, kMaxNameBytes);
            });
        }
        if (key == "nonce") {
            nonce_seen = true;
            return read_nonce(r, hello.nonce);
        }
        if (key == "name") return read_text(r, hello.name, kMaxNameBytes);
        if (key == "inc") return read_value(r, hello.incarnation.value);
        if (key == "lane") {
            return read_enum(r, hello.lane, LaneKind::kControl, LaneKind::kBulk);
        }
        if (key == "link") return read_link_id(r, hello.link);
        if (key == "auth") return read_value(r, hello.secret_wanted);
        if (key == "proof") return read_nonce(r, hello.proof.emplace());
        return Field::unknown();
    });
    if (read && !nonce_seen) read = error(ErrorCode::kInvalidArgument, "no nonce");
    return finish_reading(std::move(read), hello, "hello");
}

void append_load(std::string& out, const LoadMessage& load) {
    const bool hands_off = load.load.unclaimed_handoffs != 0 || load.load.unclaimed_bytes != 0 ||
                           load.load.unclaimed_limit != 0;
    MsgpackWriter w(out);
    w.map(11 + (hands_off ? 3U : 0U));
    w.string("rank").number(load.rank);
    w.string("run").number(load.load.running);
    w.string("wait").number(load.load.waiting);
    w.string("runmax").number(load.load.running_limit);
    w.string("waitmax").number(load.load.waiting_limit);
    w.string("waittok").number(load.load.waiting_tokens);
    w.string("kvuse").number(load.load.kv_used_tokens);
    w.string("kvcache").number(load.load.kv_cached_tokens);
    w.string("kvall").number(load.load.kv_total_tokens);
    w.string("book").number(load.booking);
    w.string("steps").number(load.steps);
    if (!hands_off) return;
    w.string("ho").number(load.load.unclaimed_handoffs);
    w.string("hobytes").number(load.load.unclaimed_bytes);
    w.string("homax").number(load.load.unclaimed_limit);
}

Result<LoadMessage> read_load(std::string_view payload) {
    LoadMessage m;
    auto read = each_field_of(payload, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "rank") return read_value(r, m.rank);
        if (key == "run") return read_value(r, m.load.running);
        if (key == "wait") return read_value(r, m.load.waiting);
        if (key == "runmax") return read_value(r, m.load.running_limit);
        if (key == "waitmax") return read_value(r, m.load.waiting_limit);
        if (key == "waittok") return read_value(r, m.load.waiting_tokens);
        if (key == "kvuse") return read_value(r, m.load.kv_used_tokens);
        if (key == "kvcache") return read_value(r, m.load.kv_cached_tokens);
        if (key == "kvall") return read_value(r, m.load.kv_total_tokens);
        if (key == "book") return read_value(r, m.booking);
        if (key == "steps") return read_value(r, m.steps);
        if (key == "ho") return read_value(r, m.load.unclaimed_handoffs);
        if (key == "hobytes") return read_value(r, m.load.unclaimed_bytes);
        if (key == "homax") return read_value(r, m.load.unclaimed_limit);
        return Field::unknown();
    });
    return finish_reading(std::move(read), m, "load");
}

void append_go_away(std::string& out, const GoAway& go_away) {
    MsgpackWriter w(out);
    w.map(2).string("why");
    write_text(w, go_away.reason, kMaxErrorBytes);
    w.string("grace").number(go_away.grace_ms);
}

Result<GoAway> read_go_away(std::string_view payload) {
    GoAway m;
    auto read = each_field_of(payload, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "why") return read_text(r, m.reason, kMaxErrorBytes);
        if (key == "grace") return read_value(r, m.grace_ms);
        return Field::unknown();
    });
    return finish_reading(std::move(read), m, "go-away");
}

void append_fetch(std::string& out, const Fetch& fetch) {
    MsgpackWriter w(out);
    w.map(6);
    w.string("kind").number(static_cast<std::uint64_t>(fetch.kind));
    w.string("sha256").string(fetch.sha256);
    w.string("topic");
    write_text(w, fetch.topic, kMaxNameBytes);
    w.string("rank").number(fetch.rank);
    w.string("from").number(fetch.from);
    w.string("to").number(fetch.to);
}

Result<Fetch> read_fetch(std::string_view payload) {
    Fetch m;
    bool kind_seen = false;
    auto read = each_field_of(payload, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "kind") {
            kind_seen = true;
            return read_enum(r, m.kind, Fetch::Kind::kArtifact, Fetch::Kind::kEventRange);
        }
        if (key == "sha256") return read_text(r, m.sha256, 64);
        if (key == "topic") return read_text(r, m.topic, kMaxNameBytes);
        if (key == "rank") return read_value(r, m.rank);
        if (key == "from") return read_value(r, m.from);
        if (key == "to") return read_value(r, m.to);
        return Field::unknown();
    });
    if (read && !kind_seen) read = error(ErrorCode::kInvalidArgument, "no kind");
    if (read && m.kind == Fetch::Kind::kEventRange && m.to < m.from) {
        read = error(ErrorCode::kInvalidArgument, "range from {} to {}", m.from, m.to);
    }
    return finish_reading(std::move(read), m, "fetch");
}

void append_error(std::string& out, const Error& error) {
    MsgpackWriter w(out);
    w.map(5);
    w.string("code").number(static_cast<std::uint64_t>(error.code));
    w.string("msg");
    write_text(w, error.message, kMaxErrorBytes);
    w.string("param");
    write_text(w, error.param, kMaxNameBytes);
    w.string("retry").boolean(error.retryable);
    w.string("after").number(error.retry_after_ms);
}

Result<Error> read_error(std::string_view payload) {
    Error m;
    auto read = each_field_of(payload, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "code") {
            // A code of a later version is an error all the same.
            std::uint64_t code = 0;
            auto ok = read_value(r, code);
            const bool known = code >= 1 && code <= static_cast<std::uint64_t>(ErrorCode::kUnknown);
            m.code = known ? static_cast<ErrorCode>(code) : ErrorCode::kUnknown;
            return ok;
        }
        if (key == "msg") return read_text(r, m.message, kMaxErrorBytes);
        if (key == "param") return read_text(r, m.param, kMaxNameBytes);
        if (key == "retry") return read_value(r, m.retryable);
        if (key == "after") return read_value(r, m.retry_after_ms);
        return Field::unknown();
    });
    if (m.message.empty()) m.message = "the other side gave no reason";
    return finish_reading(std::move(read), m, "error");
}

}  // namespace stator::requests
