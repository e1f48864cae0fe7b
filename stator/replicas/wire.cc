#include "stator/replicas/wire.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "stator/codec/msgpack.h"

namespace stator::replicas {
namespace {

using codec::MsgpackReader;
using codec::MsgpackWriter;
using Kind = BookingEvent::Kind;

constexpr std::size_t kMostName = 300;
constexpr std::size_t kMostNames = 2 * kMostEvents;
/// Seconds of a booking: more is nonsense.
constexpr double kMostSeconds = 1e6;
/// Ages in microseconds, up to an hour: of older ones it does not matter how old.
constexpr std::uint64_t kMostAge_us = 3'600'000'000U;

/// The names of ranks in a message, each once.
class Names {
  public:
    void put(const std::string& name) {
        if (numbers_.try_emplace(name, numbers_.size()).second) order_.push_back(&name);
    }
    void put(const SharedBooking& b) {
        put(b.rank);
        if (!b.decode_rank.empty()) put(b.decode_rank);
    }
    [[nodiscard]] std::size_t of(const std::string& name) const { return numbers_.at(name); }
    void write(MsgpackWriter& w) const {
        w.string("names").array(order_.size());
        for (const std::string* name : order_) w.string(*name);
    }

  private:
    std::map<std::string_view, std::size_t, std::less<>> numbers_;
    std::vector<const std::string*> order_;
};

void write_age(MsgpackWriter& w, Nanos at, Nanos now) {
    const auto age = std::chrono::duration_cast<std::chrono::microseconds>(now - at).count();
    w.string("age").number(
        std::min(kMostAge_us, static_cast<std::uint64_t>(std::max<std::int64_t>(0, age))));
}

void write_booking(MsgpackWriter& w, const SharedBooking& b, const Names& names) {
    const bool pair = !b.decode_rank.empty();
    w.string("booking").map(10U + (pair ? 1U : 0U));
    w.string("rank").number(names.of(b.rank));
    if (pair) w.string("decode").number(names.of(b.decode_rank));
    w.string("prompt").number(b.prompt_tokens);
    w.string("cached").number(b.cached_tokens);
    w.string("kv").number(b.kv_tokens);
    w.string("level").number(b.level);
    w.string("prefills").boolean(b.prefills);
    w.string("extra_s").real32(b.extra_s);
    w.string("lasts_s").real32(b.lasts_s);
    w.string("session").number(b.session);
    codec::append_u64_binary(w.string("places"), b.places);
}

void write_range(MsgpackWriter& w, const NumberRange& r) {
    w.string("low").number(r.low).string("high").number(r.high);
}

void write(MsgpackWriter& w, std::string_view pool, const Delta& delta, Nanos now) {
    w.map(6).string("kind").string("delta").string("pool").string(pool);
    w.string("seq").number(delta.sequence).string("again").boolean(delta.again);
    Names names;
    for (const BookingEvent& e : delta.events) {
        if (e.booking) names.put(*e.booking);
    }
    names.write(w);
    w.string("events").array(delta.events.size());
    for (const BookingEvent& e : delta.events) {
        w.map(e.kind == Kind::kEnded ? 3 : 4).string("op");
        w.string(e.kind == Kind::kBooked ? "booked" : e.kind == Kind::kEnded ? "ended" : "first");
        w.string("n").number(e.number);
        write_age(w, e.at, now);
        if (e.kind == Kind::kBooked) write_booking(w, *e.booking, names);
        if (e.kind == Kind::kFirstToken) w.string("cached").number(e.cached_tokens);
    }
}

void write(MsgpackWriter& w, std::string_view pool, const Digest& digest, Nanos) {
    w.map(5).string("kind").string("digest").string("pool").string(pool);
    w.string("seq").number(digest.sequence).string("oldest").number(digest.oldest);
    w.string("ranges").array(digest.ranges.size());
    for (const RangeDigest& r : digest.ranges) {
        w.map(4);
        write_range(w, r.range);
        w.string("count").number(r.count).string("hash").number(r.hash);
    }
}

void write(MsgpackWriter& w, std::string_view pool, const Part& part, Nanos now) {
    w.map(7).string("kind").string("part").string("pool").string(pool);
    w.string("seq").number(part.sequence);
    write_range(w, part.range);
    Names names;
    for (const Part::Entry& e : part.bookings) names.put(*e.booking);
    names.write(w);
    w.string("events").array(part.bookings.size());
    for (const Part::Entry& e : part.bookings) {
        w.map(4).string("n").number(e.booking->number);
        w.string("prefilled").boolean(e.prefilled);
        write_age(w, e.at, now);
        write_booking(w, *e.booking, names);
    }
}

void write(MsgpackWriter& w, std::string_view pool, const Ask& ask, Nanos) {
    w.map(5).string("kind").string("ask").string("pool").string(pool);
    w.string("of").number(ask.of.value);
    codec::append_u64_binary(w.string("deltas"), ask.deltas);
    w.string("ranges").array(ask.ranges.size());
    for (const NumberRange& r : ask.ranges) {
        w.map(2);
        write_range(w, r);
    }
}

/// Everything that any kind of message has; what its kind lacks stays as it is.
struct Fields {
    std::string_view kind;
    std::string_view pool;
    std::uint64_t sequence = 0;
    std::uint64_t oldest = 1;
    std::uint64_t of = 0;
    bool again = false;
    NumberRange range;
    std::vector<std::string_view> names;
    struct Event {
        std::string_view op;
        BookingEvent event;
        bool prefilled = false;
    };
    std::vector<Event> events;
    std::vector<RangeDigest> ranges;
    std::vector<std::uint64_t> deltas;
};

template <typename... Args>
tl::unexpected<Error> bad(ErrorFormat text, Args&&... args) {
    return error(ErrorCode::kInvalidArgument, text, std::forward<Args>(args)...);
}

template <typename Number>
Result<void> read_number(MsgpackReader& r, Number& to,
                         std::uint64_t most = std::numeric_limits<Number>::max()) {
    const auto n = r.number();
    if (!n) return tl::unexpected(n.error());
    if (*n > most) return bad("{} is more than {}", *n, most);
    to = static_cast<Number>(*n);
    return {};
}

Result<void> read_bool(MsgpackReader& r, bool& to) {
    const auto v = r.boolean();
    if (!v) return tl::unexpected(v.error());
    to = *v;
    return {};
}

Result<void> read_seconds(MsgpackReader& r, float& to) {
    const auto v = r.real();
    if (!v) return tl::unexpected(v.error());
    if (!(*v >= 0 && *v <= kMostSeconds)) return bad("{} are no seconds", *v);
    to = static_cast<float>(*v);
    return {};
}

Result<void> read_hashes(MsgpackReader& r, std::vector<std::uint64_t>& to, std::size_t most) {
    auto v = codec::read_u64_binary(r);
    if (!v) return tl::unexpected(v.error());
    if (v->size() > most) return bad("{} numbers where {} are allowed", v->size(), most);
    to = std::move(*v);
    return {};
}

/// The fields of a map, one by one; those that `read` does not know (nullopt) are passed over.
template <typename Read>
Result<void> read_map(MsgpackReader& r, std::size_t around, Read&& read) {
    const auto pairs = r.map();
    if (!pairs) return tl::unexpected(pairs.error());
    for (std::size_t i = 0; i < *pairs; ++i) {
        const auto key = r.string();
        if (!key) return tl::unexpected(key.error());
        std::optional<Result<void>> known = read(*key);
        if (!known) known = r.skip(around + 1);
        if (!*known) return tl::unexpected(std::move(known->error()));
    }
    return {};
}

template <typename Each>
Result<void> read_array(MsgpackReader& r, std::size_t most, Each&& each) {
    const auto n = r.array();
    if (!n) return tl::unexpected(n.error());
    if (*n > most) return bad("{} values where {} are allowed", *n, most);
    for (std::size_t i = 0; i < *n; ++i) {
        if (auto ok = each(); !ok) return ok;
    }
    return {};
}

using Known = std::optional<Result<void>>;

Result<void> read_name(MsgpackReader& r, const Fields& f, std::string& to) {
    std::uint32_t number = 0;
    if (auto ok = read_number(r, number); !ok) return ok;
    if (number >= f.names.size()) return bad("rank {} of {} names", number, f.names.size());
    to = f.names[number];
    return {};
}

Result<void> read_booking(MsgpackReader& r, const Fields& f, SharedBooking& b) {
    auto ok = read_map(r, 3, [&](std::string_view key) -> Known {
        if (key == "rank") return read_name(r, f, b.rank);
        if (key == "decode") return read_name(r, f, b.decode_rank);
        if (key == "prompt") return read_number(r, b.prompt_tokens);
        if (key == "cached") return read_number(r, b.cached_tokens);
        if (key == "kv") return read_number(r, b.kv_tokens);
        if (key == "level") return read_number(r, b.level);
        if (key == "prefills") return read_bool(r, b.prefills);
        if (key == "extra_s") return read_seconds(r, b.extra_s);
        if (key == "lasts_s") return read_seconds(r, b.lasts_s);
        if (key == "session") return read_number(r, b.session);
        if (key == "places") return read_hashes(r, b.places, SharedBooking::kMostPlaces);
        return std::nullopt;
    });
    if (ok && b.rank.empty()) return bad("a booking names no rank");
    return ok;
}

Result<void> read_event(MsgpackReader& r, Fields& f, Nanos now) {
    Fields::Event e;
    std::uint64_t age_us = 0;
    std::shared_ptr<SharedBooking> booking;
    auto ok = read_map(r, 2, [&](std::string_view key) -> Known {
        if (key == "n") return read_number(r, e.event.number);
        if (key == "age") return read_number(r, age_us, kMostAge_us);
        if (key == "cached") return read_number(r, e.event.cached_tokens);
        if (key == "prefilled") return read_bool(r, e.prefilled);
        if (key == "op") {
            const auto op = r.string();
            if (!op) return tl::unexpected(op.error());
            e.op = *op;
            return Result<void>{};
        }
        if (key != "booking") return std::nullopt;
        booking = std::make_shared<SharedBooking>();
        return read_booking(r, f, *booking);
    });
    if (!ok) return ok;
    if (e.event.number == 0) return bad("an event without a booking's number");
    e.event.at = now - std::chrono::microseconds(age_us);
    if (booking) booking->number = e.event.number;
    e.event.booking = std::move(booking);
    f.events.push_back(std::move(e));
    return {};
}

Result<void> read_range(MsgpackReader& r, Fields& f) {
    RangeDigest d;
    auto ok = read_map(r, 2, [&](std::string_view key) -> Known {
        if (key == "low") return read_number(r, d.range.low);
        if (key == "high") return read_number(r, d.range.high);
        if (key == "count") return read_number(r, d.count);
        if (key == "hash") return read_number(r, d.hash);
        return std::nullopt;
    });
    if (!ok) return ok;
    if (d.range.low > d.range.high) return bad("a range ends before it begins");
    f.ranges.push_back(d);
    return {};
}

Known read_field(MsgpackReader& r, std::string_view key, Fields& f, Nanos now) {
    const auto text = [&](std::string_view& to, std::size_t most) -> Result<void> {
        const auto v = r.string();
        if (!v) return tl::unexpected(v.error());
        if (v->size() > most) return bad("a name of {} bytes", v->size());
        to = *v;
        return {};
    };
    if (key == "kind") return text(f.kind, kMostName);
    if (key == "pool") return text(f.pool, kMostName);
    if (key == "seq") return read_number(r, f.sequence);
    if (key == "oldest") return read_number(r, f.oldest);
    if (key == "of") return read_number(r, f.of);
    if (key == "again") return read_bool(r, f.again);
    if (key == "low") return read_number(r, f.range.low);
    if (key == "high") return read_number(r, f.range.high);
    if (key == "deltas") return read_hashes(r, f.deltas, kMostAsked);
    if (key == "names") {
        return read_array(r, kMostNames, [&] { return text(f.names.emplace_back(), kMostName); });
    }
    if (key == "events") return read_array(r, kMostEvents, [&] { return read_event(r, f, now); });
    if (key == "ranges") return read_array(r, kMostRanges, [&] { return read_range(r, f); });
    return std::nullopt;
}

Result<Message> make_delta(Fields& f) {
    if (f.sequence == 0) return bad("a delta without a sequence");
    Delta d;
    d.sequence = f.sequence;
    d.again = f.again;
    for (Fields::Event& e : f.events) {
        if (e.op == "booked") {
            if (!e.event.booking) return bad("a booking without what was booked");
            e.event.kind = Kind::kBooked;
        } else if (e.op == "first") {
            e.event.kind = Kind::kFirstToken;
        } else if (e.op == "ended") {
            e.event.kind = Kind::kEnded;
        } else {
            continue;  // something new
        }
        d.events.push_back(std::move(e.event));
    }
    return d;
}

Result<Message> make_digest(Fields& f) {
    std::uint64_t next = 0;
    for (const RangeDigest& r : f.ranges) {
        if (r.range.low != next || (next == 0 && &r != &f.ranges.front())) {
            return bad("the ranges of a digest don't follow each other");
        }
        next = r.range.high + 1;
    }
    if (f.ranges.empty() || next != 0) return bad("the ranges of a digest don't cover all");
    return Digest{f.sequence, f.oldest, std::move(f.ranges)};
}

Result<Message> make_part(Fields& f) {
    if (f.range.low > f.range.high) return bad("a part ends before it begins");
    Part p;
    p.sequence = f.sequence;
    p.range = f.range;
    std::uint64_t before = 0;
    for (Fields::Event& e : f.events) {
        if (!e.event.booking) return bad("a booking without what was booked");
        if (e.event.number <= before || e.event.number < f.range.low ||
            e.event.number > f.range.high) {
            return bad("the bookings of a part are out of order");
        }
        before = e.event.number;
        p.bookings.push_back({std::move(e.event.booking), e.prefilled, e.event.at});
    }
    return p;
}

Result<Message> make_ask(Fields& f) {
    if (f.ranges.size() > kMostAsked) return bad("{} ranges are asked for", f.ranges.size());
    Ask a;
    a.of = ReplicaId(f.of);
    a.deltas = std::move(f.deltas);
    for (const RangeDigest& r : f.ranges) a.ranges.push_back(r.range);
    return a;
}

Result<Message> make_message(Fields& f) {
    if (f.kind == "delta") return make_delta(f);
    if (f.kind == "digest") return make_digest(f);
    if (f.kind == "part") return make_part(f);
    if (f.kind == "ask") return make_ask(f);
    return error(ErrorCode::kNotFound, "a message of another kind");
}

}  // namespace

void encode(std::string_view pool, const Message& message, Nanos now, std::string& out) {
    MsgpackWriter w(out);
    std::visit([&](const auto& body) { write(w, pool, body, now); }, message);
}

Result<PoolMessage> decode(std::string_view payload, Nanos now) {
    MsgpackReader r(payload);
    Fields f;
    auto ok = read_map(r, 0, [&](std::string_view key) { return read_field(r, key, f, now); });
    if (!ok) return tl::unexpected(std::move(ok.error()));
    if (!r.done()) return bad("bytes after the message's end");
    auto message = make_message(f);
    if (!message) return tl::unexpected(std::move(message.error()));
    return PoolMessage{f.pool, std::move(*message)};
}

}  // namespace stator::replicas
