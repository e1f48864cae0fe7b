#include "stator/gateway/grpc/ext_proc_server.h"

#if STATOR_HAVE_GRPC

#include <ext_proc.grpc.pb.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/gateway/grpc/wire.h"

namespace stator::gateway {
namespace {

namespace ep = envoy::service::ext_proc::v3;

constexpr std::string_view kService = "envoy.service.ext_proc.v3.ExternalProcessor";
/// A stream reads no further while so much of it waits to be written.
constexpr std::size_t kMaxUnwritten = std::size_t{1} << 20U;
constexpr int kMaxMessageBytes = 64 << 20;
constexpr int kLookahead = 1 << 20;
constexpr std::chrono::milliseconds kLookAtReadiness{100};

/// What the streams of a server share.
struct Shared {
    Shared(ExtProcOptions o, Picker& p, metrics::Registry& r)
        : options(std::move(o)),
          picker(p),
          budget(options.max_kept_bytes),
          streams(r.gauge("stator_gateway_streams", "Requests whose streams are open.")),
          broken(r.counter("stator_gateway_broken_streams_total",
                           "Streams ended because the proxy broke the protocol.")) {}
    const ExtProcOptions options;
    Picker& picker;
    BodyBudget budget;
    metrics::Gauge& streams;
    metrics::Counter& broken;
    std::atomic<std::int64_t> open{0};

    void count(std::int64_t by) {
        streams.set(static_cast<double>(open.fetch_add(by, std::memory_order_relaxed) + by));
    }
};

/// One stream. gRPC calls it on threads of its own, a reading and a writing one at a time.
class Stream final : public grpc::ServerBidiReactor<ep::ProcessingRequest, ep::ProcessingResponse> {
  public:
    explicit Stream(Shared& shared)
        : shared_(shared), exchange_(shared.options.exchange, shared.picker, shared.budget) {
        shared_.count(1);
        StartRead(&in_);
    }

    void OnReadDone(bool ok) override {
        if (!ok) return finish(grpc::Status::OK);
        std::vector<ToProxy> out;
        const auto taken = exchange_.take(from_wire(in_), out);
        if (!taken) {
            shared_.broken.add();
            log_warn("A gateway's stream is ended.", {{"reason", taken.error().message}});
            return finish({grpc::StatusCode::INVALID_ARGUMENT, taken.error().message});
        }
        bool read_on = !exchange_.answered();
        {
            const std::scoped_lock lock(mutex_);
            for (ToProxy& m : out) {
                unwritten_ += m.body.size();
                queue_.push_back(std::move(m));
            }
            if (!writing_ && !queue_.empty()) write_next();
            if (read_on && unwritten_ > kMaxUnwritten) {
                paused_ = true;
                read_on = false;
            }
        }
        if (exchange_.answered()) return finish(grpc::Status::OK);
        if (read_on) StartRead(&in_);
    }

    void OnWriteDone(bool ok) override {
        bool read_on = false;
        {
            const std::scoped_lock lock(mutex_);
            unwritten_ -= written_;
            if (!ok) {
                queue_.clear();
                unwritten_ = 0;
            }
            if (!queue_.empty()) {
                write_next();
            } else {
                writing_ = false;
                if (status_) Finish(*status_);
            }
            if (paused_ && !status_ && unwritten_ <= kMaxUnwritten / 2) {
                paused_ = false;
                read_on = true;
            }
        }
        if (read_on) StartRead(&in_);
    }

    void OnDone() override {
        shared_.count(-1);
        delete this;
    }

  private:
    /// What is queued is written first. Once.
    void finish(grpc::Status status) {
        const std::scoped_lock lock(mutex_);
        if (status_) return;
        status_ = std::move(status);
        if (!writing_) Finish(*status_);
    }

    /// Under the lock.
    void write_next() {
        ToProxy message = std::move(queue_.front());
        queue_.pop_front();
        written_ = message.body.size();
        writing_ = true;
        out_.Clear();
        to_wire(message, out_);
        // Without a buffer hint: gRPC may not call OnWriteDone() of a write that it holds back, and
        // the next one, which would flush it, waits for that.
        StartWrite(&out_);
    }

    Shared& shared_;
    ep::ProcessingRequest in_;
    Exchange exchange_;  ///< of what reads
    std::mutex mutex_;   ///< of what follows
    ep::ProcessingResponse out_;
    std::deque<ToProxy> queue_;
    std::size_t unwritten_ = 0;
    std::size_t written_ = 0;  ///< of the message that is being written
    bool writing_ = false;
    bool paused_ = false;
    std::optional<grpc::Status> status_;
};

class Service final : public ep::ExternalProcessor::CallbackService {
  public:
    explicit Service(Shared& shared) : shared_(shared) {}
    grpc::ServerBidiReactor<ep::ProcessingRequest, ep::ProcessingResponse>* Process(
        grpc::CallbackServerContext* /*context*/) override {
        return new Stream(shared_);  // deletes itself
    }

  private:
    Shared& shared_;
};

class Server final : public ExtProcServer {
  public:
    Server(ExtProcOptions options, Picker& picker, metrics::Registry& registry, const Clock& clock)
        : shared_(std::move(options), picker, registry), service_(shared_), clock_(clock) {}
    ~Server() override { stop(Deadline::at({})); }

    Result<void> start() {
        grpc::EnableDefaultHealthCheckService(true);
        grpc::ServerBuilder builder;
        const auto& o = shared_.options;
        std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
        if (!o.certificate.empty()) {
            grpc::SslServerCredentialsOptions tls;
            tls.pem_key_cert_pairs.push_back({o.key, o.certificate});
            credentials = grpc::SslServerCredentials(tls);
        }
        int port = 0;
        builder.AddListeningPort(o.listen, credentials, &port);
        builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
        builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookahead);
        builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
        builder.RegisterService(&service_);
        server_ = builder.BuildAndStart();
        if (!server_ || port == 0) {
            server_.reset();
            return error(ErrorCode::kInvalidArgument, "can't listen on {} for gateways", o.listen);
        }
        port_ = static_cast<std::uint16_t>(port);
        server_->GetHealthCheckService()->SetServingStatus("liveness", true);
        show_readiness(false);
        watcher_ = std::thread([this] { watch(); });
        return {};
    }

    [[nodiscard]] std::uint16_t port() const override { return port_; }

    void drain() override {
        const std::scoped_lock lock(mutex_);
        draining_ = true;
        show_readiness(false);
    }

    void stop(Deadline deadline) override {
        {
            const std::scoped_lock lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        if (watcher_.joinable()) watcher_.join();
        if (!server_) return;
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline.left(clock_.now()));
        server_->Shutdown(gpr_time_add(gpr_now(GPR_CLOCK_REALTIME),
                                       gpr_time_from_millis(left.count(), GPR_TIMESPAN)));
        server_->Wait();
        server_.reset();
    }

  private:
    void show_readiness(bool ready) {
        auto* health = server_->GetHealthCheckService();
        health->SetServingStatus("readiness", ready);
        health->SetServingStatus(std::string(kService), ready);
    }

    void watch() {
        pthread_setname_np(pthread_self(), "stator-ready");
        std::unique_lock lock(mutex_);
        bool shown = false;
        while (!wake_.wait_for(lock, kLookAtReadiness, [this] { return stopping_; })) {
            const bool ready = !draining_ && shared_.picker.ready();
            if (ready != shown && !draining_) show_readiness(ready);
            shown = ready;
        }
    }

    Shared shared_;
    Service service_;
    const Clock& clock_;
    std::unique_ptr<grpc::Server> server_;
    std::uint16_t port_ = 0;
    std::thread watcher_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool draining_ = false;
    bool stopping_ = false;
};

}  // namespace

Result<std::unique_ptr<ExtProcServer>> start_ext_proc_server(ExtProcOptions options, Picker& picker,
                                                             metrics::Registry& registry,
                                                             const Clock& clock) {
    auto server = std::make_unique<Server>(std::move(options), picker, registry, clock);
    if (auto ok = server->start(); !ok) return tl::unexpected(ok.error());
    return server;
}

}  // namespace stator::gateway

#else

namespace stator::gateway {

Result<std::unique_ptr<ExtProcServer>> start_ext_proc_server(ExtProcOptions /*options*/,
                                                             Picker& /*picker*/,
                                                             metrics::Registry& /*registry*/,
                                                             const Clock& /*clock*/) {
    return error(ErrorCode::kUnsupported,
                 "this program was built without gRPC; install libgrpc++-dev and "
                 "protobuf-compiler-grpc and build it again with -DSTATOR_WITH_GRPC=ON");
}

}  // namespace stator::gateway

#endif
