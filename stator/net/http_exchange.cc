#include <utility>

#include "stator/base/check.h"
#include "stator/net/http_connection.h"

namespace stator::net {

Exchange::Exchange(std::shared_ptr<Shard> shard, std::shared_ptr<Connection> connection,
                   HttpRequest&& request, bool http_1_0, std::uint64_t number,
                   std::size_t body_charged)
    : shard_(std::move(shard)),
      connection_(std::move(connection)),
      request_(std::move(request)),
      http_1_0_(http_1_0),
      head_only_(request_.method == "HEAD"),
      number_(number),
      body_charged_(body_charged) {}

Exchange::~Exchange() {
    release_body_charge();
    // Dropped without a whole answer, perhaps on another thread: the client must not wait for ever.
    if (connection_) {
        shard_->loop().post([connection = std::move(connection_), number = number_] {
            connection->abandoned(number);
        });
    }
}

void Exchange::release_body_charge() {
    if (body_charged_ == 0) return;
    shard_->core().body_bytes.fetch_sub(std::exchange(body_charged_, 0), std::memory_order_relaxed);
}

std::string Exchange::take_body() {
    release_body_charge();
    return std::exchange(request_.body, {});
}

void Exchange::add_header(std::string_view name, std::string_view value) {
    STATOR_ASSERT(stage_ == Stage::kNew);
    append_header(extra_headers_, name, value);
}

void Exchange::put_head(int status, std::string_view content_type, Framing framing,
                        std::size_t length) {
    status_ = status;
    framing_ = framing;
    close_ = !request_.keep_alive || framing == Framing::kUntilClose ||
             shard_->core().stopping.load(std::memory_order_relaxed);
    const AnswerHead head{.status = status,
                          .content_type = content_type,
                          .extra = extra_headers_,
                          .framing = framing,
                          .content_length = length,
                          .close = close_,
                          .keep_alive = http_1_0_};
    append_head(connection_->out(), head, shard_->date_line());
}

void Exchange::respond(int status, std::string_view content_type, std::string_view body) {
    if (!connection_) return;
    STATOR_CHECK(stage_ == Stage::kNew, "an exchange is answered twice");
    const bool has_body = status_has_body(status);
    put_head(status, has_body ? content_type : std::string_view(),
             has_body ? Framing::kLength : Framing::kNone, body.size());
    if (has_body && !head_only_) {
        connection_->out().append(body);
        body_bytes_ = body.size();
    }
    finish();
}

void Exchange::begin_stream(int status, std::string_view content_type) {
    if (!connection_) return;
    STATOR_CHECK(stage_ == Stage::kNew, "an exchange is answered twice");
    stage_ = Stage::kStreaming;
    const bool has_body = status_has_body(status);
    put_head(status, has_body ? content_type : std::string_view(),
             !has_body    ? Framing::kNone
             : !http_1_0_ ? Framing::kChunked
                          : Framing::kUntilClose,
             0);
}

void Exchange::write(std::string_view bytes) {
    if (!connection_ || bytes.empty()) return;
    STATOR_CHECK(stage_ == Stage::kStreaming, "write() outside of begin_stream()..end_stream()");
    if (!head_only_ && framing_ != Framing::kNone) {
        if (framing_ == Framing::kChunked) {
            append_chunk(connection_->out(), bytes);
        } else {
            connection_->out().append(bytes);
        }
        body_bytes_ += bytes.size();
    }
    connection_->wrote_some();
}

void Exchange::end_stream() {
    if (!connection_) return;
    STATOR_CHECK(stage_ == Stage::kStreaming, "end_stream() without begin_stream()");
    if (framing_ == Framing::kChunked && !head_only_) connection_->out().append(kLastChunk);
    finish();
}

void Exchange::finish() {
    stage_ = Stage::kWhole;
    const auto connection = std::move(connection_);
    connection_.reset();
    connection->finish(shared_from_this(), close_);
}

void Exchange::abort() {
    if (!connection_) return;
    const auto connection = std::move(connection_);
    static_cast<void>(lost());
    connection->abort();
}

void Exchange::on_disconnect(std::function<void()> f) {
    if (disconnected_) {
        shard_->loop().post(std::move(f));
    } else if (stage_ != Stage::kOver) {
        on_disconnect_ = std::move(f);
    }
}

void Exchange::on_complete(std::function<void(int status, std::uint64_t body_bytes)> f) {
    if (stage_ != Stage::kOver) on_complete_ = std::move(f);
}

std::function<void()> Exchange::lost() {
    connection_.reset();
    disconnected_ = true;
    stage_ = Stage::kOver;
    on_complete_ = nullptr;
    return std::exchange(on_disconnect_, nullptr);
}

void Exchange::sent() {
    stage_ = Stage::kOver;
    on_disconnect_ = nullptr;
    if (const auto f = std::exchange(on_complete_, nullptr)) f(status_, body_bytes_);
}

}  // namespace stator::net
