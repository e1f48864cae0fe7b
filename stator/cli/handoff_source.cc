#include "stator/cli/handoff_source.h"

#include <cstring>
#include <optional>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/version.h"
#include "stator/cli/handoff_facts.h"

namespace stator::cli {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::Leg;
using requests::StreamId;

constexpr std::size_t kMaxLinks = 8;
/// A size travels as two "tokens" below it.
constexpr std::uint64_t kDigits = 1'000'000;

protocol::WorkerInfo info_of(const transfer::TransferPlane& plane) {
    protocol::WorkerInfo info;
    info.name = kHandoffSourceModel;
    info.version = version();
    info.engine = "none";
    info.roles = {protocol::Role::kPrefill};
    info.card.name = kHandoffSourceModel;
    constexpr std::size_t kDigest = 64;
    info.card.tokenizer.sha256 = std::string(kDigest, '0');
    info.ranks = {protocol::RankInfo{.max_running = 1}};
    info.transfer_methods = plane.methods();
    return info;
}

/// One link; on its loop.
class SourceLink final : public requests::WorkerSessionEvents,
                         public std::enable_shared_from_this<SourceLink> {
  public:
    SourceLink(std::shared_ptr<requests::ServerLink> link,
               std::shared_ptr<transfer::TransferPlane> plane)
        : link_(std::move(link)), plane_(std::move(plane)) {}

    void on_ready(const requests::Hello& /*client*/) override {
        link_->session().send_info(info_of(*plane_));
        link_->flush();
    }

    Result<void> on_open(StreamId stream, std::uint32_t /*rank*/, std::uint64_t /*booking*/,
                         GenerateRequest&& request) override {
        protocol::StepBatch batch;
        protocol::StepEvent& event = batch.events.emplace_back();
        event.id = protocol::RequestId(stream.value);
        event.prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
        if (request.leg == Leg::kPrefill) {
            auto published = publish();
            if (!published) return tl::unexpected<Error>(std::move(published.error()));
            event.finish = FinishReason::kHandoff;
            event.handoff = std::move(*published);
        } else {
            if (auto ok = prepare(request); !ok) return ok;
            event.finish = FinishReason::kLength;
            event.count = 1;
            batch.tokens.push_back({.token = 0});
        }
        // The session is in the middle of its input.
        link_->loop().post([self = shared_from_this(), batch = std::move(batch)] {
            if (!self->link_) return;
            self->link_->session().send_step(batch, Clock::real().now());
            self->link_->flush();
        });
        return {};
    }
    void on_cancel(StreamId /*stream*/) override {}
    void on_fetch(std::uint64_t fetch, const requests::Fetch& /*what*/) override {
        link_->session().fetched(fetch, error(ErrorCode::kNotFound, "there are no artifacts here"));
    }
    void on_lane_unwanted(requests::LaneId /*lane*/, const Error& /*why*/) override {}
    void on_lost(const Error& /*why*/) override {
        buffer_.reset();
        link_.reset();
    }

  private:
    Result<void> prepare(const GenerateRequest& request) {
        if (cpu_at_publish_) moved_cpu_ += own_cost().cpu_seconds - *cpu_at_publish_;
        cpu_at_publish_.reset();
        if (request.prompt.size() != 2 || request.leg != Leg::kWhole) {
            return error(ErrorCode::kUnsupported,
                         "this is `stator bench transfer`; it computes nothing");
        }
        buffer_.reset();
        auto reserved = plane_->reserve(request.prompt[0] + request.prompt[1] * kDigits);
        if (!reserved) return tl::unexpected<Error>(std::move(reserved.error()));
        buffer_ = std::move(*reserved);
        std::memset(buffer_->bytes().data(), ++fill_, buffer_->bytes().size());
        return {};
    }

    Result<std::shared_ptr<const protocol::Handoff>> publish() {
        if (!buffer_) return error(ErrorCode::kInvalidArgument, "no memory was asked for");
        const ProcessCost cost = own_cost();
        cpu_at_publish_ = cost.cpu_seconds;
        protocol::Handoff what;
        what.tokens = 1;
        what.parts.push_back({.tokens = 1, .bytes = buffer_->bytes().size()});
        what.shape = to_json(HandoffFacts{.cpu_seconds = moved_cpu_,
                                          .resident_bytes = cost.resident_bytes,
                                          .fill = fill_,
                                          .why_off = plane_->why_off()});
        return plane_->publish(std::move(buffer_), std::move(what));
    }

    std::shared_ptr<requests::ServerLink> link_;
    const std::shared_ptr<transfer::TransferPlane> plane_;
    std::unique_ptr<transfer::HandoffBuffer> buffer_;
    std::uint8_t fill_ = 0;
    double moved_cpu_ = 0;
    std::optional<double> cpu_at_publish_;
};

}  // namespace

Result<std::unique_ptr<HandoffSource>> HandoffSource::start(
    HandoffSourceOptions options, std::shared_ptr<transfer::TransferPlane> plane,
    runtime::LoopPool& loops) {
    requests::LinkServerOptions server;
    server.address = std::move(options.listen);
    server.session.lost_after = options.lost_after;
    server.max_links = kMaxLinks;
    server.secret = std::move(options.secret);
    server.tls = std::move(options.tls);
    auto listening = requests::listen_links(loops, std::move(server), [plane](auto link) {
        return std::make_shared<SourceLink>(std::move(link), plane);
    });
    if (!listening) return tl::unexpected<Error>(std::move(listening.error()));
    std::unique_ptr<HandoffSource> made(new HandoffSource);
    made->server_ = std::move(*listening);
    return made;
}

HandoffSource::~HandoffSource() {
    if (server_) server_->stop();
}

GenerateRequest memory_request(std::uint64_t bytes) {
    GenerateRequest out;
    out.prompt = {static_cast<protocol::TokenId>(bytes % kDigits),
                  static_cast<protocol::TokenId>(bytes / kDigits)};
    out.max_tokens = 1;
    return out;
}

GenerateRequest publish_request() {
    GenerateRequest out;
    out.prompt = {0, 0};
    out.max_tokens = 1;
    out.leg = Leg::kPrefill;
    return out;
}

}  // namespace stator::cli
