#include "stator/frontend/pools/router_api.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "stator/codec/json_writer.h"
#include "stator/frontend/nvext.h"

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;

constexpr std::int64_t kDumpedBlocks = 100'000;  // at once: some 2 MB

tl::unexpected<Error> wrong(std::string_view member, std::string_view expected) {
    Error e = error(ErrorCode::kInvalidArgument, "{} must be {}", member, expected).value();
    e.param = std::string(member);
    return tl::unexpected(std::move(e));
}

Result<void> take_word(JsonView body, std::string_view name, std::string& out) {
    const JsonView v = body.find(name);
    if (v.is_null()) return {};
    const auto text = v.as_string();
    if (!text || text->size() > kMaxHintBytes) {
        return wrong(name, fmt::format("a text of at most {} bytes", kMaxHintBytes));
    }
    out = *text;
    return {};
}

template <typename T>
Result<void> take_number(JsonView body, std::string_view name, std::int64_t min, std::int64_t max,
                         T& out) {
    const JsonView v = body.find(name);
    if (v.is_null()) return {};
    const auto n = v.as_int();
    if (!n || *n < min || *n > max) {
        return wrong(name, fmt::format("a whole number from {} to {}", min, max));
    }
    out = static_cast<std::int64_t>(*n);
    return {};
}

Result<void> take_words(JsonView body, std::string_view name, std::vector<std::string>& out) {
    const JsonView v = body.find(name);
    if (v.is_null()) return {};
    bool good = v.type() == JsonType::kArray && v.size() <= kMaxHintLabels;
    v.each_element([&](std::size_t, JsonView one) {
        const auto text = one.as_string();
        good = good && text && text->size() <= kMaxHintBytes;
        if (good) out.emplace_back(*text);
        return good;
    });
    if (good) return {};
    return wrong(name, fmt::format("a list of at most {} texts", kMaxHintLabels));
}

Result<std::vector<tokens::TokenId>> take_tokens(JsonView body, const protocol::ModelCard& card) {
    std::vector<tokens::TokenId> out;
    const JsonView v = body.find("tokens");
    if (v.type() != JsonType::kArray || v.size() == 0 || v.size() > card.context_tokens) {
        return wrong("tokens", fmt::format("a list of 1 to {} token ids", card.context_tokens));
    }
    out.reserve(v.size());
    bool good = true;
    v.each_element([&](std::size_t, JsonView one) {
        const auto n = one.as_uint();
        good = n && *n <= std::numeric_limits<tokens::TokenId>::max();
        if (good) out.push_back(static_cast<tokens::TokenId>(*n));
        return good;
    });
    if (!good) return wrong("tokens", "a list of token ids");
    return out;
}

/// The number that a frontend makes of a request's salt.
Result<void> take_salt(JsonView body, std::uint64_t& out) {
    const JsonView v = body.find("cache_salt");
    if (v.is_null()) return {};
    const auto n = v.as_uint();
    if (!n) return wrong("cache_salt", "a whole number from 0 to 2^64 - 1");
    out = *n;
    return {};
}

/// A request as a frontend would make it.
Result<protocol::GenerateRequest> take_request(JsonView body, const protocol::ModelCard& card,
                                               bool trusted) {
    protocol::GenerateRequest r;
    auto prompt = take_tokens(body, card);
    if (!prompt) return tl::unexpected(std::move(prompt.error()));
    r.prompt = std::move(*prompt);
    r.max_tokens = std::max<std::uint32_t>(
        1, card.context_tokens - static_cast<std::uint32_t>(r.prompt.size()));
    auto hints = std::make_shared<protocol::RouteHints>();
    std::optional<std::int64_t> rank;
    std::int64_t priority = 0;
    std::int64_t output = 0;
    std::int64_t max_tokens = r.max_tokens;
    if (const JsonView hard = body.find("session_hard"); !hard.is_null()) {
        const auto set = hard.as_bool();
        if (!set) return wrong("session_hard", "true or false");
        hints->session_hard = *set;
    }
    for (auto ok : {take_word(body, "session", hints->session), take_word(body, "tenant", r.tenant),
                    take_word(body, "worker", hints->worker), take_word(body, "adapter", r.adapter),
                    take_words(body, "require", hints->required_labels),
                    take_words(body, "prefer", hints->preferred_labels),
                    take_words(body, "tolerate", hints->tolerated_taints),
                    take_number(body, "rank", 0, kMaxHintRank, rank),
                    take_number(body, "priority", std::numeric_limits<std::int32_t>::min(),
                                std::numeric_limits<std::int32_t>::max(), priority),
                    take_number(body, "max_tokens", 1, kMaxHintOutput, max_tokens),
                    take_salt(body, r.cache_salt),
                    take_number(body, "expected_output_tokens", 1, kMaxHintOutput, output)}) {
        if (!ok) return tl::unexpected(std::move(ok.error()));
    }
    if (rank) hints->rank = static_cast<std::uint32_t>(*rank);
    hints->expected_output_tokens = static_cast<std::uint32_t>(output);
    r.priority = static_cast<std::int32_t>(priority);
    r.max_tokens = static_cast<std::uint32_t>(max_tokens);
    if (!trusted) {
        r.priority = 0;
        r.tenant.clear();
        protocol::RouteHints session;
        session.session = std::move(hints->session);
        *hints = std::move(session);
    }
    r.hints = std::move(hints);
    return r;
}

Result<std::uint64_t> take_booking(JsonView body) {
    const auto text = body.find("booking").as_string();
    std::uint64_t id = 0;
    if (!text) return wrong("booking", "the text that /router/reserve gave");
    const auto [end, failed] = std::from_chars(text->data(), text->data() + text->size(), id, 16);
    if (failed != std::errc{} || end != text->data() + text->size()) {
        return wrong("booking", "the text that /router/reserve gave");
    }
    return id;
}

tl::unexpected<Error> no_booking() {
    return error(ErrorCode::kNotFound,
                 "there is no such booking; it may have been released, or "
                 "its time is over");
}

}  // namespace

RouterApi::RouterApi(Routers routers, const Clock& clock)
    : routers_(std::move(routers)), clock_(clock), random_(std::random_device{}()) {}

Result<std::string> RouterApi::act(std::string_view action, std::string_view body, bool trusted) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return tl::unexpected(root.error());
    if (root->type() != JsonType::kObject) {
        return error(ErrorCode::kInvalidArgument, "the body must be a JSON object");
    }
    if (!trusted && (action == "select" || action == "dump")) {
        return error(
            ErrorCode::kPermissionDenied,
            "/router/{} is for callers whose routing hints count: on this machine, or with "
            "an API key that has hints=yes; see --router-hints",
            action);
    }
    if (action == "select") return select(*root);
    if (action == "reserve") return reserve(*root, trusted);
    if (action == "first_token") return first_token(*root);
    if (action == "release") return release(*root);
    if (action == "overlap") return overlap(*root);
    if (action == "loads") return loads(*root);
    if (action == "dump") return dump(*root);
    return error(ErrorCode::kNotFound,
                 "/router/{} is nothing; there are select, reserve, first_token, release, overlap, "
                 "loads, dump",
                 action.substr(0, kMaxHintBytes));
}

/// Of the model's largest pool: callers that share traffic between pools do so themselves.
Result<std::shared_ptr<routing::PoolRouter>> RouterApi::router_of(JsonView body) {
    const auto name = body.find("model").as_string();
    const auto all = routers_();
    if (!name && all.size() == 1) return all.front().router;
    if (!name) return wrong("model", "the name of a model");
    for (const auto& served : all) {
        if (served.model == *name || served.pool == *name) return served.router;
    }
    return error(ErrorCode::kNotFound, "no pool serves the model {}",
                 name->substr(0, kMaxHintBytes));
}

Result<std::string> RouterApi::select(JsonView body) {
    const auto router = router_of(body);
    if (!router) return tl::unexpected(router.error());
    const auto request = take_request(body, (*router)->card(), true);
    if (!request) return tl::unexpected(request.error());
    return (*router)->explain(*request);
}

Result<std::string> RouterApi::reserve(JsonView body, bool trusted) {
    const auto router = router_of(body);
    if (!router) return tl::unexpected(router.error());
    const auto request = take_request(body, (*router)->card(), trusted);
    if (!request) return tl::unexpected(request.error());
    const TimePoint now = clock_.now();
    forget_old(now);
    {
        const std::scoped_lock lock(mutex_);
        if (bookings_.size() >= kMaxBookings) {
            return error(ErrorCode::kOverloaded, "{} bookings are not released yet", kMaxBookings);
        }
    }
    const auto route = (*router)->choose(*request, {});
    if (!route) return tl::unexpected(route.error());
    std::uint32_t rank = 0;
    const auto worker = (*router)->worker(route->rank, rank);
    std::uint64_t id = 0;
    {
        const std::scoped_lock lock(mutex_);
        do id = random_();
        while (bookings_.contains(id));
        bookings_.emplace(id, Booked{*router, *route, now, by_age_.emplace(now, id)});
    }
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("booking").string(fmt::format("{:016x}", id));
    w.key("worker").string(worker ? worker->info()->name : "").key("rank").number(rank);
    w.key("predicted_ttft_ms").number(std::round(route->ttft_s * 1e6) / 1e3);
    w.key("cached_tokens").number(route->cached_tokens);
    w.key("expires_in_s").number(static_cast<std::int64_t>(kBookingLasts.count())).end_object();
    return out;
}

Result<std::string> RouterApi::first_token(JsonView body) {
    const auto id = take_booking(body);
    if (!id) return tl::unexpected(id.error());
    std::optional<std::int64_t> said;
    constexpr std::int64_t kMost = std::numeric_limits<std::uint32_t>::max();
    if (auto ok = take_number(body, "cached_tokens", 0, kMost, said); !ok) {
        return tl::unexpected(ok.error());
    }
    std::optional<Booked> booked;
    {
        const std::scoped_lock lock(mutex_);
        if (const auto at = bookings_.find(*id); at != bookings_.end()) booked = at->second;
    }
    if (!booked) return no_booking();
    std::optional<std::uint32_t> cached;
    if (said) cached = static_cast<std::uint32_t>(*said);
    booked->router->first_token(booked->route, cached, booked->at);
    return R"({"ok":true})";
}

Result<std::string> RouterApi::release(JsonView body) {
    const auto id = take_booking(body);
    if (!id) return tl::unexpected(id.error());
    std::optional<Booked> booked;
    {
        const std::scoped_lock lock(mutex_);
        if (const auto at = bookings_.find(*id); at != bookings_.end()) {
            booked = std::move(at->second);
            by_age_.erase(booked->place);
            bookings_.erase(at);
        }
    }
    if (!booked) return no_booking();
    booked->router->ended(booked->route.booking);
    return R"({"ok":true})";
}

Result<std::string> RouterApi::overlap(JsonView body) {
    const auto router = router_of(body);
    if (!router) return tl::unexpected(router.error());
    const auto prompt = take_tokens(body, (*router)->card());
    if (!prompt) return tl::unexpected(prompt.error());
    std::uint64_t salt = 0;
    if (auto ok = take_salt(body, salt); !ok) return tl::unexpected(std::move(ok.error()));
    std::string adapter;
    if (auto ok = take_word(body, "adapter", adapter); !ok) return tl::unexpected(ok.error());
    const std::uint32_t block = (*router)->card().block_tokens;
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("block_tokens").number(block);
    w.key("blocks").number(static_cast<std::uint64_t>(block == 0 ? 0 : prompt->size() / block));
    w.key("ranks").begin_array();
    for (const auto& holder : (*router)->holders(*prompt, salt, adapter)) {
        w.begin_object().key("rank").string(holder.name);
        w.key("device_blocks").number(holder.device_blocks);
        w.key("any_blocks").number(holder.any_blocks).end_object();
    }
    w.end_array().end_object();
    return out;
}

Result<std::string> RouterApi::loads(JsonView body) {
    const auto router = router_of(body);
    if (!router) return tl::unexpected(router.error());
    const auto state = (*router)->state();
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("bookings").number(static_cast<std::uint64_t>(state.bookings));
    w.key("ranks");
    append_ranks_json(w, state);
    w.end_object();
    return out;
}

Result<std::string> RouterApi::dump(JsonView body) {
    const auto router = router_of(body);
    if (!router) return tl::unexpected(router.error());
    std::string worker;
    std::int64_t rank = 0;
    std::int64_t skip = 0;
    std::int64_t limit = kDumpedBlocks;
    for (auto ok :
         {take_word(body, "worker", worker), take_number(body, "rank", 0, kMaxHintRank, rank),
          take_number(body, "skip", 0, std::numeric_limits<std::int64_t>::max(), skip),
          take_number(body, "limit", 1, kDumpedBlocks, limit)}) {
        if (!ok) return tl::unexpected(std::move(ok.error()));
    }
    const auto dump =
        (*router)->dump(worker, static_cast<std::uint32_t>(rank), static_cast<std::size_t>(skip),
                        static_cast<std::size_t>(limit));
    if (!dump) return tl::unexpected(dump.error());
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("rank").string(dump->name);
    w.key("blocks").number(static_cast<std::uint64_t>(dump->all_blocks));
    w.key("runs").begin_array();
    std::uint64_t given = 0;
    for (const auto& run : dump->runs) {
        w.begin_object().key("tier").string(to_string(run.tier)).key("sequence_hashes");
        w.begin_array();
        // As text: many readers of JSON keep 53 bits of a number.
        for (const auto hash : run.blocks) w.string(fmt::format("{:016x}", hash.value));
        w.end_array().end_object();
        given += run.blocks.size();
    }
    const std::uint64_t next = static_cast<std::uint64_t>(skip) + given;
    w.end_array().key("next_skip");
    if (given > 0 && next < dump->all_blocks) {
        w.number(next);
    } else {
        w.null();
    }
    w.end_object();
    return out;
}

/// Bookings of callers that never came back.
void RouterApi::forget_old(TimePoint now) {
    std::vector<Booked> old;
    {
        const std::scoped_lock lock(mutex_);
        while (!by_age_.empty() && now - by_age_.begin()->first > kBookingLasts) {
            const auto at = bookings_.find(by_age_.begin()->second);
            old.push_back(std::move(at->second));
            bookings_.erase(at);
            by_age_.erase(by_age_.begin());
        }
    }
    for (const Booked& b : old) b.router->ended(b.route.booking);
}

}  // namespace stator::frontend
