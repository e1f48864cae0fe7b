#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "stator/loadgen/answer.h"
#include "stator/loadgen/schedule.h"
#include "stator/net/http_pool.h"
#include "stator/report/record.h"

namespace stator::loadgen {

/// One request on its way: collects the answer and tells at the end what became of it. Inside the
/// room.
class Exchange final : public net::HttpCallHandler {
  public:
    using Ended = std::function<void(Exchange&)>;

    Exchange(Start start, TimePoint sent, codec::JsonDocument& json, bool keep_text, Ended ended)
        : start_(std::move(start)),
          sent_(sent),
          json_(json),
          answer_(json, keep_text),
          ended_(std::move(ended)) {}

    void on_head(const net::HttpResponseHead& head) override;
    void on_body(std::string_view piece, TimePoint at) override;
    void on_end(const net::HttpFailure* failure, TimePoint at) override;

    [[nodiscard]] const Start& start() const { return start_; }
    [[nodiscard]] StreamedAnswer& answer() { return answer_; }
    [[nodiscard]] const StreamedAnswer& answer() const { return answer_; }
    [[nodiscard]] const std::optional<Fault>& fault() const { return fault_; }
    [[nodiscard]] bool answered() const { return status_ != 0; }
    /// After the end. The gaps are in `gaps`, which must outlive the record.
    [[nodiscard]] report::RequestRecord record(TimePoint begin, std::vector<float>& gaps) const;

    std::shared_ptr<net::HttpCall> call;  ///< set by whoever started it

  private:
    Start start_;
    TimePoint sent_;
    codec::JsonDocument& json_;
    StreamedAnswer answer_;
    Ended ended_;
    int status_ = 0;
    std::string error_body_;
    std::optional<Fault> fault_;
    TimePoint end_;
};

}  // namespace stator::loadgen
