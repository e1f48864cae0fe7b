#include "stator/frontend/relay/upstreams.h"

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/codec/json.h"

namespace stator::frontend {

Upstreams::Upstreams(std::vector<net::HttpUrl> urls, metrics::Registry& registry) {
    for (net::HttpUrl& url : urls) {
        auto& made = *all_.emplace_back(std::make_unique<Upstream>(std::move(url)));
        const std::string name = made.url.authority + (made.url.path == "/" ? "" : made.url.path);
        made.requests = &registry.counter("stator_relay_requests_total", "Requests passed on.",
                                          {{"upstream", name}});
        made.failures =
            &registry.counter("stator_relay_failures_total",
                              "Of these, those whose upstream did not answer, or not to the end.",
                              {{"upstream", name}});
    }
}

void Upstreams::answered(std::size_t i, std::vector<std::string> models) {
    Upstream& u = *all_[i];
    {
        const std::scoped_lock lock(mutex_);
        u.models = std::move(models);
    }
    if (u.up.exchange(true)) return;
    log_info("An upstream serves.", {{"upstream", u.url.authority}});
}

void Upstreams::failed(std::size_t i, const std::string& why) {
    Upstream& u = *all_[i];
    if (!u.up.exchange(false)) return;
    log_warn("An upstream can't be reached; it gets no requests until it answers again.",
             {{"upstream", u.url.authority}, {"reason", why}});
}

bool Upstreams::serves(std::string_view model) const {
    const std::scoped_lock lock(mutex_);
    return std::ranges::any_of(all_, [&](const auto& u) {
        return std::ranges::find(u->models, model) != u->models.end();
    });
}

std::vector<std::string> Upstreams::models() const {
    std::vector<std::string> out;
    const std::scoped_lock lock(mutex_);
    for (const auto& u : all_) {
        for (const std::string& m : u->models) {
            if (std::ranges::find(out, m) == out.end()) out.push_back(m);
        }
    }
    return out;
}

bool Upstreams::any_up() const {
    return std::ranges::any_of(all_, [](const auto& u) { return u->up.load(); });
}

std::size_t Upstreams::choose(std::string_view model, const std::vector<bool>& tried) {
    const std::size_t begin = turn_.fetch_add(1, std::memory_order_relaxed);
    std::size_t best = kNone;
    std::uint32_t least = 0;
    const std::scoped_lock lock(mutex_);
    for (std::size_t k = 0; k < all_.size(); ++k) {
        const std::size_t i = (begin + k) % all_.size();
        const Upstream& u = *all_[i];
        if (!u.up.load() || tried[i] || std::ranges::find(u.models, model) == u.models.end()) {
            continue;
        }
        const std::uint32_t in_work = u.in_work.load(std::memory_order_relaxed);
        if (best == kNone || in_work < least) {
            best = i;
            least = in_work;
        }
    }
    return best;
}

std::vector<std::string> read_model_list(std::string_view json) {
    constexpr std::size_t kMost = 1000;
    constexpr std::size_t kLongestId = 512;
    codec::JsonDocument document;
    std::vector<std::string> out;
    const auto root = document.parse(json);
    if (!root) return out;
    root->find("data").each_element([&](std::size_t, codec::JsonView item) {
        const auto id = item.find("id").as_string();
        if (id && !id->empty() && id->size() <= kLongestId) out.emplace_back(*id);
        return out.size() < kMost;
    });
    return out;
}

}  // namespace stator::frontend
