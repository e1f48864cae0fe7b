#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "stator/frontend/router.h"
#include "stator/net/http_server.h"

namespace stator::frontend {

/// Which web pages may call the API (the Fetch standard's CORS protocol). Origins match exactly;
/// "*" allows all.
class CorsPolicy {
  public:
    explicit CorsPolicy(std::vector<std::string> origins);

    [[nodiscard]] bool enabled() const { return any_ || !origins_.empty(); }
    /// Adds the headers every answer needs. Nothing where CORS is off.
    void add_headers(net::HttpExchange& exchange) const;
    /// Whether the request is a browser's question that answer_preflight() is to answer.
    [[nodiscard]] bool is_preflight(const net::HttpRequest& request) const;
    /// 204 with what is allowed; after add_headers().
    void answer_preflight(net::HttpExchange& exchange, Route route) const;

  private:
    [[nodiscard]] bool allows(std::string_view origin) const;

    bool any_ = false;
    std::vector<std::string> origins_;
};

}  // namespace stator::frontend
