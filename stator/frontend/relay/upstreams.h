#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "stator/metrics/registry.h"
#include "stator/net/http_url.h"

namespace stator::frontend {

/// One server that requests are passed on to. Any thread.
struct Upstream {
    explicit Upstream(net::HttpUrl u) : url(std::move(u)) {}

    const net::HttpUrl url;
    std::atomic<bool> up{false};
    std::atomic<std::uint32_t> in_work{0};
    metrics::Counter* requests = nullptr;
    metrics::Counter* failures = nullptr;
    std::vector<std::string> models;  ///< under Upstreams' mutex
};

/// Which upstreams there are, what they serve, and whose turn it is. Any thread.
class Upstreams {
  public:
    Upstreams(std::vector<net::HttpUrl> urls, metrics::Registry& registry);

    [[nodiscard]] std::size_t size() const { return all_.size(); }
    [[nodiscard]] Upstream& at(std::size_t i) { return *all_[i]; }
    [[nodiscard]] const Upstream& at(std::size_t i) const { return *all_[i]; }

    /// What it answered to a probe, in its order. Marks it as up; logs changes.
    void answered(std::size_t i, std::vector<std::string> models);
    /// It could not be reached. Marks it as down; logs the change.
    void failed(std::size_t i, const std::string& why);

    [[nodiscard]] bool serves(std::string_view model) const;
    [[nodiscard]] std::vector<std::string> models() const;
    [[nodiscard]] bool any_up() const;

    static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
    /// The one with the fewest requests in work among those that serve the model, are up and are
    /// not among the `tried`; of equal ones each in turn. kNone: there is none left.
    [[nodiscard]] std::size_t choose(std::string_view model, const std::vector<bool>& tried);

  private:
    std::vector<std::unique_ptr<Upstream>> all_;
    mutable std::mutex mutex_;
    std::atomic<std::size_t> turn_{0};
};

/// The ids of an OpenAI list of models; empty where it is none. At most 1,000.
[[nodiscard]] std::vector<std::string> read_model_list(std::string_view json);

}  // namespace stator::frontend
