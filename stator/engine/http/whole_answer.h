#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "stator/engine/http/call_host.h"
#include "stator/net/http_pool.h"

namespace stator::engine {

/// Keeps an answer that is not streamed, up to a bound: what is longer is cut off there, and
/// `whole` is false.
class WholeAnswer final : public net::HttpCallHandler {
  public:
    struct Body {
        int status = 0;
        unsigned retry_after_s = 0;
        bool whole = true;
        std::string text;
    };
    using Done = std::function<void(Body body, const net::HttpFailure* failure)>;
    WholeAnswer(std::size_t most, Done done) : most_(most), done_(std::move(done)) {}
    void on_head(const net::HttpResponseHead& head) override {
        const AnswerHead seen = answer_head(head);
        body_.status = seen.status;
        body_.retry_after_s = seen.retry_after_s;
    }
    void on_body(std::string_view piece, TimePoint /*at*/) override {
        const std::size_t room = most_ - std::min(most_, body_.text.size());
        body_.whole = body_.whole && piece.size() <= room;
        body_.text.append(piece.substr(0, room));
    }
    void on_end(const net::HttpFailure* failure, TimePoint /*at*/) override {
        done_(std::move(body_), failure);
    }

  private:
    const std::size_t most_;
    const Done done_;
    Body body_;
};

}  // namespace stator::engine
