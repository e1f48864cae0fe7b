#pragma once

#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace stator::model {

/// SHA-256 over pieces. Room-internal.
class Sha256 {
  public:
    Sha256();
    void add(std::string_view bytes);
    /// Eight bytes, least significant first.
    void add_number(std::uint64_t n);
    /// 64 lower-case hex digits. Once.
    [[nodiscard]] std::string hex();

  private:
    struct Free {
        void operator()(evp_md_ctx_st* c) const;
    };
    std::unique_ptr<evp_md_ctx_st, Free> context_;
};

[[nodiscard]] std::string sha256_hex(std::string_view bytes);

}  // namespace stator::model
