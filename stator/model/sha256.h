#pragma once

#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace stator::model {

/// SHA-256 (FIPS 180-4) of bytes given in pieces. Room-internal.
class Sha256 {
  public:
    Sha256();
    void add(std::string_view bytes);
    /// 64 lower-case hex digits. Once, at the end.
    [[nodiscard]] std::string hex();

  private:
    struct Free {
        void operator()(evp_md_ctx_st* c) const;
    };
    std::unique_ptr<evp_md_ctx_st, Free> context_;
};

[[nodiscard]] std::string sha256_hex(std::string_view bytes);
/// Whether a name that came from elsewhere is a digest, and so fit to name a file.
[[nodiscard]] bool is_sha256_hex(std::string_view text);

}  // namespace stator::model
