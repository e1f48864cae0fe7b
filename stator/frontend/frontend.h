#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/codec/json_writer.h"
#include "stator/engine/engine.h"
#include "stator/media/loader.h"
#include "stator/metrics/registry.h"
#include "stator/net/http_server.h"
#include "stator/protocol/demand.h"
#include "stator/runtime/loop.h"
#include "stator/text/chat_template.h"
#include "stator/text/parsers/output_parser.h"
#include "stator/text/tokenizer.h"

namespace stator::frontend {

class ModelDirectory;

/// Sampling where a request leaves it out.
struct SamplingDefaults {
    float temperature = 1.0F;
    float top_p = 1.0F;
    std::int32_t top_k = 0;
    float min_p = 0.0F;
};

/// One model as the door shows it; all but `chat_template` must be there. During a rolling upgrade
/// one id has several entries, a pool each, that may differ in everything.
struct ServedModel {
    std::string id;  ///< the name clients use
    std::vector<std::string> aliases;
    /// LoRA adapters, which clients name as they name models.
    std::vector<std::string> adapters = {};
    std::int64_t created = 0;  ///< Unix seconds
    std::shared_ptr<const text::Tokenizer> tokenizer;
    /// None: chat completions are refused with a hint.
    std::shared_ptr<const text::ChatTemplate> chat_template;
    /// How the model writes thinking and calls; empty parts: it is not looked for.
    text::OutputFormat format;
    std::shared_ptr<engine::Engine> engine;
    /// Kinds of media that the engine takes encode legs of: "image", "video". Empty: none.
    std::vector<std::string> media = {};
    /// What the template writes where an item stands; empty: it knows no media.
    std::string media_mark = {};
    SamplingDefaults defaults;
    std::string pool;    ///< tells entries of one id apart; empty where there is one
    double share = 1.0;  ///< of the traffic of this id, relative to the other entries of it
};

/// Passes requests for some models on as they are, text and all, to servers that do the rest.
class RequestRelay {
  public:
    struct Request {
        std::shared_ptr<net::HttpExchange> exchange;
        std::string path;
        std::string body;  ///< a JSON object
        std::string model;
        std::string id;  ///< x-request-id
        /// Told when the first byte of an answer's body came.
        std::function<void(TimePoint)> on_first_byte;
    };
    virtual ~RequestRelay() = default;
    [[nodiscard]] virtual bool serves(std::string_view model) const = 0;  ///< any thread
    [[nodiscard]] virtual std::vector<std::string> models() const = 0;    ///< any thread
    [[nodiscard]] virtual bool healthy() const = 0;                       ///< any thread
    /// On the exchange's loop; answers it, whatever happens. What it returns ends the work; call it
    /// when the client has left.
    [[nodiscard]] virtual std::function<void()> pass_on(Request request) = 0;
};

/// Whose routing hints are honoured (route_hints.h).
enum class TrustHints : std::uint8_t {
    kNobody,
    kLocal,  ///< callers on this machine; not for a door behind a proxy on the same machine
    kEverybody,
};

struct FrontendOptions {
    std::vector<std::string>
        api_keys{};  ///< empty: no authentication (health routes never need any)
    /// Of each key the tenant that its requests belong to; may be shorter, and its texts empty.
    std::vector<std::string> key_tenants{};
    /// Of each key whether routing hints that come with it count, whoever sends them; may be
    /// shorter.
    std::vector<bool> key_trusted{};
    std::vector<std::string> cors_origins{};  ///< "*" or exact origins; empty = CORS off
    std::uint32_t max_choices = 128;          ///< upper bound of `n`
    std::uint32_t max_media_items = 16;       ///< images and videos of one request
    std::uint32_t max_inflight = 4096;        ///< requests in work; beyond: 503 with Retry-After
    std::chrono::milliseconds request_timeout{
        0};  ///< 0 = none; then the request ends as by its deadline
    bool access_log = true;
    TrustHints trust_hints = TrustHints::kLocal;
    std::size_t prepare_threads = 0;  ///< for long prompts; 0 = half of the usable cores
};

/// Binds HTTP requests to engines. Make it before the server, hand handler() to it; stop the server
/// first, then the engines and the loops, then destroy this. handler() and error_body() are
/// thread-safe; a handler that outlives this drops its requests.
class Frontend {
  public:
    Frontend(FrontendOptions options, runtime::LoopPool& loops, metrics::Registry& registry,
             const Clock& clock = Clock::real());
    ~Frontend();

    /// Replaces all models at once; any thread, at any time. Entries whose pool, tokenizer,
    /// template and engine are what they were go on unchanged; requests in work keep the entry they
    /// began with. A name that two ids claim stays with the first of them, and the log says so.
    void set_models(std::vector<ServedModel> models);
    /// The models there are now, for who prepares requests and lets others serve them. Any thread.
    [[nodiscard]] std::shared_ptr<const ModelDirectory> models() const;
    /// The same with one more than there were.
    void add_model(ServedModel model);
    /// /health gets a member "fleet" whose value this writes, and says "degraded" while there are
    /// `concerns`. Thread-safe; before the server listens.
    void observe_fleet(std::function<void(codec::JsonWriter&)> append_value,
                       std::function<std::vector<std::string>()> concerns = {});
    /// Answers POST /router/{action}. `trusted`: the caller's hints count.
    using RouterAction = std::function<Result<std::string>(std::string_view action,
                                                           std::string_view body, bool trusted)>;
    /// What GET /router answers, and POST /router/{action}; without it the paths are unknown.
    /// Thread-safe; before the server listens.
    void observe_router(std::function<void(codec::JsonWriter&)> append_value, RouterAction act);
    /// More concerns, beside those of observe_fleet(). Thread-safe; before the server listens.
    void observe_concerns(std::function<std::vector<std::string>()> more);
    /// What GET /planner and GET /planner/decisions answer, by path and query: JSON. Without it the
    /// paths are unknown. Thread-safe; before the server listens.
    void observe_planner(std::function<Result<std::string>(std::string_view target)> get);
    /// What was asked for of each model so far. Thread-safe.
    [[nodiscard]] std::vector<protocol::DemandTotals> demand() const;
    /// Requests for models that no pool or engine here serves go there, if it serves them. Before
    /// the server listens.
    void set_relay(std::shared_ptr<RequestRelay> relay);
    /// Reads what messages with images lead to; without it they are refused. Before the server
    /// listens. Stopped with this.
    void set_media(std::shared_ptr<media::MediaLoader> loader);
    /// Shows the server's own counters in /metrics. `stats` must be thread-safe and usable as long
    /// as /metrics is asked.
    void observe_server(std::function<net::HttpServerStats()> stats);
    /// /health answers 503 until this is called (liveness is always 200), and again after
    /// set_ready(false).
    void set_ready(bool ready);

    [[nodiscard]] net::HttpHandler handler();
    /// OpenAI-shaped error bodies for errors found below the frontend.
    [[nodiscard]] static net::HttpErrorBody error_body();

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace stator::frontend
