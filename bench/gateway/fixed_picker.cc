// An endpoint picker without a fleet: it goes round a list of endpoints. What the protocol itself
// costs, and something for the conformance tests to talk to. usage: fixed_picker LISTEN ENDPOINT…
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/gateway/grpc/ext_proc_server.h"

namespace {

using namespace stator;

class FixedPicker final : public gateway::Picker {
  public:
    explicit FixedPicker(std::vector<std::string> endpoints) : endpoints_(std::move(endpoints)) {}

    Result<gateway::Pick> pick(const gateway::PickRequest& request) override {
        gateway::Pick out;
        const std::size_t turn = turn_.fetch_add(1, std::memory_order_relaxed);
        for (std::size_t i = 0; i < endpoints_.size(); ++i) {
            const std::string& e = endpoints_[(turn + i) % endpoints_.size()];
            if (request.subset == nullptr ||
                std::ranges::find(*request.subset, e) != request.subset->end()) {
                out.endpoints.push_back(e);
            }
        }
        if (out.endpoints.empty()) return error(ErrorCode::kUnavailable, "no endpoint is allowed");
        return out;
    }
    [[nodiscard]] bool ready() const override { return true; }

  private:
    std::vector<std::string> endpoints_;
    std::atomic<std::size_t> turn_{0};
};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fputs("usage: fixed_picker LISTEN ENDPOINT…\n", stderr);
        return 2;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    metrics::Registry registry;
    FixedPicker picker(std::vector<std::string>(argv + 2, argv + argc));
    gateway::ExtProcOptions options;
    options.listen = argv[1];
    options.exchange.max_body_bytes = std::size_t{8} * 1024 * 1024;
    auto server = gateway::start_ext_proc_server(std::move(options), picker, registry);
    if (!server) {
        std::fprintf(stderr, "%s\n", server.error().message.c_str());
        return 1;
    }
    std::printf("%u\n", (*server)->port());
    std::fflush(stdout);
    int signal = 0;
    sigwait(&signals, &signal);
    (*server)->drain();
    const timespec pause{2, 0};
    nanosleep(&pause, nullptr);
    (*server)->stop(Deadline::after(Clock::real().now(), std::chrono::seconds(10)));
    return 0;
}
