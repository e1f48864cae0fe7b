// A prompt's KV from one worker to another on this machine, each a process with the llama engine, a
// transfer plane and a link, as `stator worker` has them; this program stands in for the frontend.
// Beside it, in this process, llama.cpp's own llama_state_seq_get_data and _set_data of a sequence
// of the same length.
//
//   bench_kv_handoff MODEL [--tokens N] [--times N] [--warm N] [--method shm|tcp]
//
// Every time another prompt is computed and handed over. Prints a line of JSON: medians in
// milliseconds, clocks of all processes being the same:
//   handoff       from the end of the prefill (the engine begins to export) to the KV being in the
//                 other engine's cache, before its first step
//   own           llama.cpp's export and import; own_parts: the same in the handoff's parts
//   added         handoff - own of each time; added_p90: what nine of ten do not exceed
//   reserve …     the stages of it, one behind the other
//   first_…       the first handoff, whose pages were never used
#include <llama.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/engine/llama/llama_engine.h"
#include "stator/metrics/registry.h"
#include "stator/model/artifacts.h"
#include "stator/model/llama_log.h"
#include "stator/requests/link.h"
#include "stator/transfer/transfer.h"
#include "stator/worker/worker.h"

using namespace stator;

namespace {

constexpr std::uint32_t kContextTokens = 8192;
constexpr std::uint32_t kPartTokens = 128;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "bench_kv_handoff: %s\n", what.c_str());
    std::exit(2);
}

std::int64_t now_ns() { return Clock::real().now().ns; }

double quantile(std::vector<double> values, double q) {
    if (values.empty()) fail("nothing was measured");
    std::ranges::sort(values);
    return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}
double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

struct Arguments {
    std::string model;
    std::uint32_t tokens = 1000;
    int times = 20;
    int warm = 3;
    std::string method = "shm";
    std::string listen;  ///< not empty: this is one of the workers
    bool decodes = false;
};

// ---- A worker
// ------------------------------------------------------------------------------------

/// When what happened, until it is asked for. Thread-safe.
class Stamps {
  public:
    void note(const std::string& what, std::int64_t ns = now_ns()) {
        const std::scoped_lock lock(mutex_);
        stamps_[what] = ns;
    }
    std::map<std::string, std::int64_t> take() {
        const std::scoped_lock lock(mutex_);
        return std::exchange(stamps_, {});
    }

  private:
    std::mutex mutex_;
    std::map<std::string, std::int64_t> stamps_;
};

/// The plane, with a note of when it is used.
class StampedPlane final : public transfer::TransferPlane {
  public:
    StampedPlane(std::unique_ptr<transfer::TransferPlane> plane, Stamps& stamps)
        : plane_(std::move(plane)), stamps_(stamps) {}

    Result<std::unique_ptr<transfer::HandoffBuffer>> reserve(std::uint64_t bytes) override {
        stamps_.note("reserve");
        auto out = plane_->reserve(bytes);
        stamps_.note("reserved");
        return out;
    }
    Result<std::shared_ptr<const protocol::Handoff>> publish(
        std::unique_ptr<transfer::HandoffBuffer> buffer, protocol::Handoff what) override {
        stamps_.note("publish");
        auto out = plane_->publish(std::move(buffer), std::move(what));
        stamps_.note("published");
        return out;
    }
    transfer::ClaimId claim(
        std::shared_ptr<const protocol::Handoff> what, transfer::ClaimOptions options,
        std::function<void(Result<std::shared_ptr<const protocol::HandoffBytes>>)> done) override {
        stamps_.note("claim");
        return plane_->claim(std::move(what), std::move(options),
                             [this, done = std::move(done)](auto arrived) {
                                 stamps_.note("arrived");
                                 if (arrived) arrived = stamped(std::move(*arrived));
                                 done(std::move(arrived));
                             });
    }
    void cancel(transfer::ClaimId id) override { plane_->cancel(id); }
    void release(std::shared_ptr<const protocol::Handoff> what) override {
        plane_->release(std::move(what));
    }
    Usage usage() const override { return plane_->usage(); }
    std::vector<std::string> methods() const override { return plane_->methods(); }
    std::map<std::string, std::string> why_off() const override { return plane_->why_off(); }
    double bytes_per_second(std::string_view method) const override {
        return plane_->bytes_per_second(method);
    }
    void stop() override { plane_->stop(); }

  private:
    /// The engine lets the bytes go when they are in its cache.
    std::shared_ptr<const protocol::HandoffBytes> stamped(
        std::shared_ptr<const protocol::HandoffBytes> bytes) {
        auto out = std::make_shared<protocol::HandoffBytes>(*bytes);
        const void* held = out->keep.get();
        out->keep =
            std::shared_ptr<const void>(held, [this, bytes = std::move(bytes), inner = out->keep](
                                                  const void*) { stamps_.note("imported"); });
        return out;
    }

    std::unique_ptr<transfer::TransferPlane> plane_;
    Stamps& stamps_;
};

std::unique_ptr<transfer::TransferPlane> start_plane(const Arguments& a,
                                                     metrics::Registry& registry) {
    transfer::TransferOptions options;
    options.methods = {a.method};
    auto plane = transfer::start_transfer(std::move(options), registry);
    if (!plane) fail(plane.error().message);
    if ((*plane)->methods().empty()) fail((*plane)->why_off()[a.method]);
    return std::move(*plane);
}

int work(const Arguments& a) {
    set_log(LogLevel::kError, LogFormat::kText);
    metrics::Registry registry;
    Stamps stamps;
    const auto plane = std::make_shared<StampedPlane>(start_plane(a, registry), stamps);
    runtime::LoopPool loops(1, "links");
    loops.start();
    worker::WorkerOptions options;
    options.name = a.decodes ? "decode" : "prefill";
    options.roles = {a.decodes ? protocol::Role::kDecode : protocol::Role::kPrefill};
    options.listen = *net::parse_socket_address(a.listen);
    options.transfer = plane;
    protocol::ModelCard card;
    card.name = "bench";
    auto worker = worker::start_worker(std::move(options), card, loops, registry);
    if (!worker) fail(worker.error().message);
    engine::LlamaOptions llama;
    llama.model_path = a.model;
    llama.handoffs = plane;
    auto engine = engine::make_llama_engine(llama, (*worker)->kv_sink(0));
    if (!engine) fail(engine.error().message);
    worker::ArtifactStore artifacts;
    card.vocab_size = 1U << 20;
    card.context_tokens = (*engine)->info().context_tokens;
    card.block_tokens = (*engine)->info().block_tokens;
    card.hash_scheme = "xxh3-64:1337";
    card.kv_layout = (*engine)->info().kv_layout;
    card.weights_digest = "bench";
    card.tokenizer = artifacts.add("byte-tokenizer", model::byte_tokenizer_artifact({}));
    (*worker)->set_ready(card, std::move(artifacts), {engine->get()});
    std::puts("ready");
    std::fflush(stdout);
    double before = 0;
    // Each line asks for what was noted since the last one.
    for (int c = std::getchar(); c != EOF; c = std::getchar()) {
        if (c != '\n') continue;
        const double seconds = (*engine)->forward_pass_metrics().handoff_seconds;
        std::printf("engine %lld", static_cast<long long>((seconds - before) * 1e9));
        before = seconds;
        for (const auto& [what, ns] : stamps.take()) {
            std::printf(" %s %lld", what.c_str(), static_cast<long long>(ns));
        }
        std::puts("");
        std::fflush(stdout);
    }
    (*worker)->stop();
    (*engine)->stop(Deadline::at(Clock::real().now()));
    plane->stop();
    loops.stop();
    return 0;
}

// ---- The frontend's place
// ------------------------------------------------------------------------

/// A worker's process.
class Child {
  public:
    explicit Child(std::vector<std::string> arguments) {
        std::array<int, 2> ends{};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) fail("socket");
        std::vector<char*> argv;
        for (auto& argument : arguments) argv.push_back(argument.data());
        argv.push_back(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(ends[1], STDIN_FILENO);
            ::dup2(ends[1], STDOUT_FILENO);
            ::execv("/proc/self/exe", argv.data());
            ::_exit(127);
        }
        ::close(ends[1]);
        fd_ = ends[0];
    }
    ~Child() {
        ::close(fd_);
        ::waitpid(pid_, nullptr, 0);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

    std::string line() {
        std::string out;
        std::array<char, 4096> piece{};
        while (!out.ends_with('\n')) {
            const ssize_t n = ::read(fd_, piece.data(), piece.size());
            if (n <= 0) fail("a worker is gone");
            out.append(piece.data(), static_cast<std::size_t>(n));
        }
        return out;
    }
    std::map<std::string, std::int64_t> stamps() {
        if (::write(fd_, "\n", 1) != 1) fail("a worker is gone");
        std::istringstream in(line());
        std::map<std::string, std::int64_t> out;
        std::string what;
        for (std::int64_t ns = 0; in >> what >> ns;) out[what] = ns;
        return out;
    }

  private:
    pid_t pid_ = -1;
    int fd_ = -1;
};

/// A link to one worker; what came of the one request on it.
class Client final : public requests::ClientLinkEvents {
  public:
    Client(runtime::Loop& loop, const std::string& address) : loop_(loop) {
        requests::LinkOptions options;
        options.address = *net::parse_socket_address(address);
        options.link.name = "bench";
        loop_.post([this, options] { link_ = requests::connect_link(loop_, options, *this); });
        wait([this] { return ready_; });
    }
    ~Client() override {
        std::promise<void> closed;
        loop_.post([&] {
            link_->close();
            link_.reset();
            closed.set_value();
        });
        closed.get_future().wait();
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    /// On the loop. `ended` is called there with the request's last event.
    void open(protocol::GenerateRequest request,
              std::function<void(const protocol::StepEvent&)> ended) {
        ended_ = std::move(ended);
        auto opened =
            link_->open(std::make_shared<protocol::GenerateRequest>(std::move(request)), 0, 0);
        if (!opened) fail(opened.error().message);
    }

    void on_info(const protocol::WorkerInfo& info) override {
        const std::scoped_lock lock(mutex_);
        ready_ = !info.loading;
        changed_.notify_all();
    }
    void on_load(const requests::LoadMessage& /*load*/) override {}
    void on_go_away(const requests::GoAway& /*go_away*/) override {}
    void on_silent(bool /*silent*/) override {}
    void on_step(requests::StreamId /*stream*/, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> /*tokens*/,
                 std::span<const protocol::TokenLogprob> /*top*/) override {
        if (event.error) fail(event.error->message);
        if (event.finish) std::exchange(ended_, nullptr)(event);
    }
    void on_turn_end() override {}
    void on_fetched(std::uint64_t /*fetch*/, Result<std::string> /*body*/) override {}
    void on_lane_wanted(requests::LaneId /*lane*/) override {}
    void on_lane_unwanted(requests::LaneId /*lane*/) override {}
    void on_lost(const Error& why) override { fail(why.message); }

  private:
    template <typename F>
    void wait(F done) {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, std::chrono::seconds(60), done)) fail("no worker");
    }

    runtime::Loop& loop_;
    std::shared_ptr<requests::Link> link_;
    std::function<void(const protocol::StepEvent&)> ended_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool ready_ = false;
};

std::vector<tokens::TokenId> some_tokens(std::uint32_t n, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<tokens::TokenId> out(n);
    for (auto& t : out) t = 1000 + random() % 20'000;
    return out;
}

/// One prompt computed there and taken over here.
void hand_over(runtime::Loop& loop, Client& prefill, Client& decode,
               const std::vector<tokens::TokenId>& prompt) {
    protocol::GenerateRequest request;
    request.prompt = prompt;
    request.max_tokens = 1;
    request.sampling.temperature = 0;
    request.leg = protocol::Leg::kPrefill;
    std::promise<void> ended;
    loop.post([&] {
        prefill.open(request, [&](const protocol::StepEvent& event) {
            if (!event.handoff) fail("no handoff came");
            protocol::GenerateRequest next = request;
            next.leg = protocol::Leg::kDecode;
            next.handoff = event.handoff;
            decode.open(std::move(next), [&](const protocol::StepEvent&) { ended.set_value(); });
        });
    });
    if (ended.get_future().wait_for(std::chrono::seconds(60)) != std::future_status::ready) {
        fail("a handoff took a minute");
    }
}

/// llama.cpp by itself, its cache made as the engine makes it.
class OwnState {
  public:
    OwnState(const Arguments& a) : tokens_(a.tokens) {
        model::route_llama_log();
        model_ = llama_model_load_from_file(a.model.c_str(), llama_model_default_params());
        if (model_ == nullptr) fail("no model");
        auto params = llama_context_default_params();
        params.n_ctx = kContextTokens;
        params.n_batch = params.n_ubatch = 512;
        params.n_seq_max = 4;
        params.n_threads = params.n_threads_batch = 1;
        params.kv_unified = true;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        context_ = llama_init_from_model(model_, params);
        if (context_ == nullptr) fail("no context");
        auto prompt = some_tokens(tokens_, 1);
        for (std::size_t at = 0; at < prompt.size(); at += params.n_batch) {
            const auto count = std::min<std::size_t>(params.n_batch, prompt.size() - at);
            auto* first = reinterpret_cast<llama_token*>(prompt.data() + at);
            if (llama_decode(context_, llama_batch_get_one(first, static_cast<int>(count))) != 0) {
                fail("llama.cpp can't compute the prompt");
            }
        }
        state_.resize(2 * llama_state_seq_get_size(context_, 0));
    }
    ~OwnState() {
        llama_free(context_);
        llama_model_free(model_);
    }
    OwnState(const OwnState&) = delete;
    OwnState& operator=(const OwnState&) = delete;

    /// Milliseconds of export and import.
    std::pair<double, double> whole() {
        llama_memory_t memory = llama_get_memory(context_);
        const std::int64_t start = now_ns();
        const std::size_t size =
            llama_state_seq_get_data(context_, state_.data(), state_.size(), 0);
        const std::int64_t middle = now_ns();
        if (llama_state_seq_set_data(context_, state_.data(), size, 1) != size) fail("no import");
        const std::int64_t end = now_ns();
        llama_memory_seq_rm(memory, 1, -1, -1);
        return {static_cast<double>(middle - start) * 1e-6,
                static_cast<double>(end - middle) * 1e-6};
    }

    /// In parts, through a sequence of its own, as the engine does.
    std::pair<double, double> parts() {
        llama_memory_t memory = llama_get_memory(context_);
        std::vector<std::size_t> sizes;
        std::size_t at = 0;
        const std::int64_t start = now_ns();
        for (std::uint32_t first = 0; first < tokens_; first += kPartTokens) {
            llama_memory_seq_cp(memory, 0, 2, static_cast<llama_pos>(first),
                                static_cast<llama_pos>(std::min(first + kPartTokens, tokens_)));
            sizes.push_back(
                llama_state_seq_get_data(context_, state_.data() + at, state_.size() - at, 2));
            at += sizes.back();
            llama_memory_seq_rm(memory, 2, -1, -1);
        }
        const std::int64_t middle = now_ns();
        at = 0;
        for (const std::size_t size : sizes) {
            if (llama_state_seq_set_data(context_, state_.data() + at, size, 2) != size) {
                fail("no import");
            }
            llama_memory_seq_cp(memory, 2, 1, -1, -1);
            llama_memory_seq_rm(memory, 2, -1, -1);
            at += size;
        }
        const std::int64_t end = now_ns();
        llama_memory_seq_rm(memory, 1, -1, -1);
        return {static_cast<double>(middle - start) * 1e-6,
                static_cast<double>(end - middle) * 1e-6};
    }

  private:
    std::uint32_t tokens_;
    llama_model* model_ = nullptr;
    llama_context* context_ = nullptr;
    std::vector<std::uint8_t> state_;
};

using Series = std::map<std::string, std::vector<double>>;

void note(Series& all, OwnState& own, Child& prefill, Child& decode) {
    const auto from = prefill.stamps();
    const auto to = decode.stamps();
    const auto ms = [](std::int64_t ns) { return static_cast<double>(ns) * 1e-6; };
    // The engine's clock starts a little before it asks for memory: digest and list of parts.
    const std::int64_t begin = from.at("published") - from.at("engine");
    const double handoff = ms(to.at("imported") - begin);
    const auto [get, set] = own.whole();
    const auto [get_parts, set_parts] = own.parts();
    const std::map<std::string, double> values{
        {"handoff", handoff},
        {"own", get + set},
        {"own_export", get},
        {"own_import", set},
        {"own_parts", get_parts + set_parts},
        {"added", handoff - get - set},
        {"reserve", ms(from.at("reserved") - begin)},
        {"export", ms(from.at("publish") - from.at("reserved"))},
        {"publish", ms(from.at("published") - from.at("publish"))},
        {"links", ms(to.at("claim") - from.at("published"))},
        {"claim", ms(to.at("arrived") - to.at("claim"))},
        {"begin_import", ms(to.at("imported") - to.at("arrived") - to.at("engine"))},
        {"import", ms(to.at("engine"))}};
    for (const auto& [name, value] : values) all[name].push_back(value);
}

void measure(const Arguments& a, const char* program) {
    std::string folder = std::filesystem::temp_directory_path() / "stator-bench-XXXXXX";
    if (::mkdtemp(folder.data()) == nullptr) fail("no folder");
    const auto child = [&](const char* role) {
        return std::vector<std::string>{program,  a.model, "--method",
                                        a.method, role,    "unix:" + folder + "/" + role + ".sock"};
    };
    {
        Child prefill_process(child("--prefill"));
        Child decode_process(child("--decode"));
        OwnState own(a);
        prefill_process.line();
        decode_process.line();
        runtime::Loop loop("frontend");
        loop.start();
        {
            Client prefill(loop, "unix:" + folder + "/--prefill.sock");
            Client decode(loop, "unix:" + folder + "/--decode.sock");
            Series first;
            Series all;
            for (int i = -a.warm; i < a.times; ++i) {
                const auto seed = static_cast<std::uint32_t>(100 + i);
                hand_over(loop, prefill, decode, some_tokens(a.tokens + 1, seed));
                if (i == 0) all.clear();
                note(all, own, prefill_process, decode_process);
                if (first.empty()) first = all;
            }
            std::printf("{\"tokens\":%u,\"method\":\"%s\",\"times\":%zu", a.tokens,
                        a.method.c_str(), all["handoff"].size());
            for (const auto& [name, values] : all) {
                std::printf(",\"%s_ms\":%.6g", name.c_str(), median(values));
            }
            std::printf(
                ",\"added_p90_ms\":%.6g,\"first_handoff_ms\":%.6g,\"first_reserve_ms\":%.6g}\n",
                quantile(all["added"], 0.9), median(first["handoff"]), median(first["reserve"]));
        }
        loop.stop();
    }
    std::filesystem::remove_all(folder);
}

}  // namespace

int main(int argc, char** argv) {
    Arguments a;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto value = [&]() -> std::string {
            if (++i >= argc) fail(word + " needs a value");
            return argv[i];
        };
        if (word == "--tokens") {
            a.tokens = static_cast<std::uint32_t>(std::stoul(value()));
        } else if (word == "--times") {
            a.times = std::stoi(value());
        } else if (word == "--warm") {
            a.warm = std::stoi(value());
        } else if (word == "--method") {
            a.method = value();
        } else if (word == "--prefill" || word == "--decode") {
            a.decodes = word == "--decode";
            a.listen = value();
        } else {
            a.model = word;
        }
    }
    if (a.model.empty() || a.tokens < 1 || a.tokens > 2000 || a.times < 1 || a.warm < 1 ||
        a.warm > 99) {
        fail("usage: bench_kv_handoff MODEL [--tokens N] [--times N] [--warm N] [--method WAY]");
    }
    if (!a.listen.empty()) return work(a);
    measure(a, argv[0]);
    return 0;
}
