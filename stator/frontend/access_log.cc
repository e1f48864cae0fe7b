#include "stator/base/log.h"
#include "stator/frontend/request_record.h"

namespace stator::frontend {

void log_access(const RequestRecord& r, int status, std::uint64_t body_bytes, TimePoint now) {
    const double total_ms = to_ms(now - r.received);
    if (r.model.empty()) {
        log_info("A request was answered.", {{"method", r.method},
                                             {"path", r.path},
                                             {"status", status},
                                             {"request_id", r.id},
                                             {"total_ms", total_ms},
                                             {"bytes", body_bytes},
                                             {"peer", r.peer}});
        return;
    }
    const double ttft_ms = r.first_token ? to_ms(*r.first_token - r.received) : -1.0;
    log_info("A request was answered.", {{"method", r.method},
                                         {"path", r.path},
                                         {"status", status},
                                         {"request_id", r.id},
                                         {"model", r.model},
                                         {"prompt_tokens", r.prompt_tokens},
                                         {"cached_tokens", r.cached_tokens},
                                         {"output_tokens", r.output_tokens},
                                         {"ttft_ms", ttft_ms},
                                         {"total_ms", total_ms},
                                         {"finish", r.finish},
                                         {"bytes", body_bytes},
                                         {"peer", r.peer}});
}

}  // namespace stator::frontend
