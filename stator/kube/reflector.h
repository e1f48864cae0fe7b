#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/codec/json.h"
#include "stator/kube/backoff.h"
#include "stator/kube/watch_lines.h"

namespace stator::kube {

/// Told what a collection on the API server holds. A key is "namespace/name".
class ObjectSink {
  public:
    virtual ~ObjectSink() = default;
    /// New or changed. The view is gone afterwards.
    virtual void on_put(std::string_view key, codec::JsonView object) = 0;
    virtual void on_gone(std::string_view key) = 0;
    /// A list is whole: what was put and is not gone is what there is.
    virtual void on_listed() = 0;
};

struct ReflectorOptions {
    /// "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices", without a query.
    std::string collection;
    std::string label_selector;  ///< as the API server reads it; empty: all
    std::size_t page = 100;      ///< objects of a list asked for at once
    std::size_t max_page_bytes = 8 * 1024 * 1024;
    std::size_t max_event_bytes = 4 * 1024 * 1024;
    std::size_t max_objects = 100'000;
    std::chrono::milliseconds backoff_min{800};
    std::chrono::milliseconds backoff_max{30'000};
    /// The server is asked to end a watch after between one and two of these.
    std::chrono::seconds watch_for{300};
    /// A watch without a byte for so long may be dead without anybody having said so; it is asked
    /// for again where it stood. A server sends bookmarks about once a minute.
    std::chrono::milliseconds watch_silence{75'000};
    std::chrono::milliseconds list_silence{30'000};
    std::uint64_t random_seed = 1;
};

struct ReflectorCounts {
    std::uint64_t lists = 0;  ///< begun
    std::uint64_t watches = 0;
    std::uint64_t events = 0;     ///< added, modified, deleted
    std::uint64_t bookmarks = 0;  ///< in watches
    std::uint64_t expired = 0;    ///< resource versions too old, in either form
    std::uint64_t bad = 0;        ///< events and objects that made no sense
    std::uint64_t silent = 0;     ///< calls given up because nothing came
};

/// Follows a collection: lists it page by page, then watches from where the list ended, for ever.
/// No sockets and no clock: its owner (watcher.h) carries out the call that take_call() gives,
/// tells what comes, and comes back when `next_time()` says so. One call at a time.
///
///               list whole                    410 (as a status or as an event)
///   ┌─────────┐ ─────────► ┌──────────┐ ──────────────────────────────► list again; what the new
///   │ listing │            │ watching │ ──┐ its end, silence, another   list does not have is gone
///   └─────────┘ ◄───────── └──────────┘ ◄─┘ error: on from the last
///        │ ▲                               version seen, after a while
///        └─┘ fails: again after a while
///
/// What is known stays known through every failure; only a whole list or an event takes it away.
class Reflector {
  public:
    Reflector(ReflectorOptions options, ObjectSink& sink);

    /// The path of a GET that is to be sent now.
    [[nodiscard]] std::optional<std::string> take_call(TimePoint now);
    /// True once where the call is to be cut off; nothing of it is told any more.
    [[nodiscard]] bool take_drop();
    /// The call before this one was refused for its token: it must be read again.
    [[nodiscard]] bool take_token_refused();
    /// When on_time() has to be called at the latest; never where a call may be taken now.
    [[nodiscard]] Deadline next_time() const;

    void on_head(int status, std::optional<std::chrono::seconds> retry_after, TimePoint now);
    void on_body(std::string_view piece, TimePoint now);
    /// The call is over; `failure` is empty where its answer came whole.
    void on_end(std::string_view failure, TimePoint now);
    void on_time(TimePoint now);

    /// Empty while all is well, else why what is known may be out of date.
    [[nodiscard]] const std::string& trouble() const { return trouble_; }
    [[nodiscard]] bool listed() const { return listed_; }
    [[nodiscard]] std::size_t objects() const { return known_.size(); }
    [[nodiscard]] const ReflectorCounts& counts() const { return counts_; }

  private:
    enum class Phase : std::uint8_t { kListing, kWatching };
    struct Known {
        std::string version;
        std::uint64_t list = 0;  ///< the last one that had it
    };
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view s) const {
            return std::hash<std::string_view>{}(s);
        }
    };

    [[nodiscard]] std::string list_path();
    [[nodiscard]] std::string watch_path();
    void begin_list();
    void drop();
    void wait(std::chrono::milliseconds how_long, TimePoint now);
    void fail(std::string reason, TimePoint now,
              std::optional<std::chrono::seconds> retry_after = {});
    void relist(TimePoint now);
    void refused(TimePoint now);
    void page_whole(TimePoint now);
    void page_too_large(TimePoint now);
    void list_whole(TimePoint now);
    bool on_line(std::string_view line, TimePoint now);
    bool bad_event(std::string reason, TimePoint now);
    void watch_over(TimePoint now);
    void put(codec::JsonView object, bool must_be_new);
    void doubt();
    void take_away(codec::JsonView object);

    const ReflectorOptions options_;
    ObjectSink& sink_;
    Backoff backoff_;
    Phase phase_ = Phase::kListing;
    bool open_ = false;  ///< a call is out
    bool drop_ = false;
    bool token_refused_ = false;
    int refused_in_row_ = 0;
    Deadline due_ = Deadline::at(TimePoint{0});  ///< not before this is the next call
    TimePoint opened_;
    TimePoint heard_;
    TimePoint watch_until_;

    int status_ = 0;
    std::optional<std::chrono::seconds> retry_after_;
    std::string body_;  ///< of a page, or of an answer that is no success
    WatchLines lines_;
    codec::JsonDocument document_;

    std::size_t page_;
    std::string continue_;
    std::uint64_t list_ = 0;  ///< number of the present or last list
    std::string version_;     ///< where a watch goes on from
    int bad_in_row_ = 0;      ///< watches ended by nonsense without a good event between
    bool listed_ = false;
    std::unordered_map<std::string, Known, Hash, std::equal_to<>> known_;
    std::string key_;  ///< scratch
    std::string trouble_;
    ReflectorCounts counts_;
    bool said_too_many_ = false;
};

}  // namespace stator::kube
