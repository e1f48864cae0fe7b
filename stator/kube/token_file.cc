#include "stator/kube/token_file.h"

#include <algorithm>

namespace stator::kube {
namespace {

bool is_token(const std::string& text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

Result<std::string> TokenFile::get(TimePoint now) {
    if (read_at_ && now - *read_at_ < kReadEvery && !token_.empty()) return token_;
    ++reads_;
    auto text = read_();
    read_at_ = now;
    if (text && is_token(*text)) {
        token_ = std::move(*text);
        return token_;
    }
    if (!token_.empty()) return token_;
    if (!text) return tl::unexpected(std::move(text.error()));
    return error(ErrorCode::kInvalidArgument, "the token file holds no token");
}

}  // namespace stator::kube
