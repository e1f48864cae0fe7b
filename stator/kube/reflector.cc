#include "stator/kube/reflector.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/kube/status.h"

namespace stator::kube {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxErrorBytes = 64 * 1024;
constexpr std::size_t kMaxKeyBytes = 600;
constexpr std::size_t kMaxVersionBytes = 256;
constexpr std::size_t kMaxContinueBytes = 16 * 1024;
constexpr std::size_t kKeptDocumentBytes = 8 * 1024 * 1024;
/// A watch that ends sooner may end so again and again.
constexpr std::chrono::seconds kShortWatch{1};
/// A watch that has lasted so long is taken for a sign that all is well.
constexpr std::chrono::seconds kGoodWatch{10};
/// Many clients whose watches broke at the same moment come back within so long.
constexpr milliseconds kSpread{100};
/// How long after a watch should have ended it is cut off.
constexpr std::chrono::seconds kOverTime{30};
/// Nonsense in so many watches in a row: what is known is listed anew.
constexpr int kMostBadWatches = 3;

std::string_view string_of(codec::JsonView v) { return v.as_string().value_or(""); }

}  // namespace

Reflector::Reflector(ReflectorOptions options, ObjectSink& sink)
    : options_(std::move(options)),
      sink_(sink),
      backoff_(options_.backoff_min, options_.backoff_max, options_.random_seed),
      lines_(options_.max_event_bytes),
      page_(std::max<std::size_t>(options_.page, 1)) {
    begin_list();
}

std::string Reflector::list_path() {
    std::string path = fmt::format("{}?limit={}", options_.collection, page_);
    if (!options_.label_selector.empty()) {
        path += "&labelSelector=" + query_escape(options_.label_selector);
    }
    if (!continue_.empty()) path += "&continue=" + query_escape(continue_);
    return path;
}

std::string Reflector::watch_path() {
    const std::int64_t seconds =
        options_.watch_for.count() + backoff_.chance(options_.watch_for).count() / 1000;
    watch_until_ = opened_ + std::chrono::seconds(seconds) + kOverTime;
    std::string path =
        fmt::format("{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
                    options_.collection, seconds, query_escape(version_));
    if (!options_.label_selector.empty()) {
        path += "&labelSelector=" + query_escape(options_.label_selector);
    }
    return path;
}

std::optional<std::string> Reflector::take_call(TimePoint now) {
    if (open_ || drop_ || !due_.reached(now)) return {};
    open_ = true;
    opened_ = now;
    heard_ = now;
    status_ = 0;
    retry_after_.reset();
    body_.clear();
    lines_.reset();
    if (phase_ == Phase::kWatching) {
        ++counts_.watches;
        return watch_path();
    }
    if (continue_.empty()) ++counts_.lists;
    return list_path();
}

bool Reflector::take_drop() { return std::exchange(drop_, false); }
bool Reflector::take_token_refused() { return std::exchange(token_refused_, false); }

Deadline Reflector::next_time() const {
    if (!open_) return due_;
    if (phase_ == Phase::kListing || status_ != 200) {
        return Deadline::after(heard_, options_.list_silence);
    }
    return std::min(Deadline::after(heard_, options_.watch_silence), Deadline::at(watch_until_));
}

void Reflector::begin_list() {
    phase_ = Phase::kListing;
    continue_.clear();
    ++list_;
}

/// The call that is out is of no use any more.
void Reflector::drop() {
    if (std::exchange(open_, false)) drop_ = true;
    body_ = {};
    lines_.reset();
}

void Reflector::wait(milliseconds how_long, TimePoint now) {
    due_ = Deadline::after(now, how_long);
}

void Reflector::fail(std::string reason, TimePoint now,
                     std::optional<std::chrono::seconds> retry_after) {
    drop();
    trouble_ = std::move(reason);
    milliseconds how_long = backoff_.next();
    if (retry_after) {
        // Not all at the same moment again.
        how_long =
            std::max<milliseconds>(how_long, *retry_after) + backoff_.chance(milliseconds(500));
    }
    wait(how_long, now);
}

void Reflector::relist(TimePoint now) {
    ++counts_.expired;
    drop();
    begin_list();
    wait(backoff_.next(), now);
}

void Reflector::on_head(int status, std::optional<std::chrono::seconds> retry_after,
                        TimePoint now) {
    if (!open_) return;
    heard_ = now;
    status_ = status;
    retry_after_ = retry_after;
    if (status == 200) {
        refused_in_row_ = 0;
        if (phase_ == Phase::kWatching) trouble_.clear();
    }
}

void Reflector::on_body(std::string_view piece, TimePoint now) {
    if (!open_) return;
    heard_ = now;
    if (status_ == 200 && phase_ == Phase::kWatching) {
        const bool fine =
            lines_.feed(piece, [&](std::string_view line) { return on_line(line, now); });
        if (!fine && open_) {
            (void)bad_event(
                fmt::format("an event has more than {} bytes", options_.max_event_bytes), now);
        }
        if (document_.capacity_bytes() > kKeptDocumentBytes) document_.shrink();
        return;
    }
    const std::size_t most = status_ == 200 ? options_.max_page_bytes : kMaxErrorBytes;
    if (body_.size() + piece.size() <= most) {
        body_ += piece;
    } else if (status_ == 200) {
        page_too_large(now);
    }  // the beginning of an error is enough
}

void Reflector::on_end(std::string_view failure, TimePoint now) {
    if (!open_) return;
    if (status_ == 200 && phase_ == Phase::kWatching) {
        open_ = false;
        watch_over(now);
        return;
    }
    if (!failure.empty()) {
        open_ = false;
        fail(std::string(failure), now);
        return;
    }
    open_ = false;
    if (status_ != 200) {
        refused(now);
        return;
    }
    page_whole(now);
}

void Reflector::on_time(TimePoint now) {
    if (!open_ || !next_time().reached(now)) return;
    if (phase_ == Phase::kWatching && status_ == 200) {
        if (now < watch_until_) ++counts_.silent;
        drop();
        wait(milliseconds(0), now);
        return;
    }
    ++counts_.silent;
    fail("the API server is silent", now);
}

/// An answer that is no success.
void Reflector::refused(TimePoint now) {
    const Status status = read_status(body_, status_);
    body_ = {};
    if (status_ == 401) {
        token_refused_ = true;
        // The token may have been replaced just now: once at once, then with patience.
        if (refused_in_row_++ == 0) {
            wait(milliseconds(0), now);
            return;
        }
    }
    if (status.expired()) {
        trouble_.clear();
        relist(now);
        return;
    }
    std::string reason = describe(status);
    if (status_ >= 500) doubt();
    // Not a matter of time or of rights: the version or the continue token is no good.
    if (status_ >= 400 && status_ < 500 && status_ != 401 && status_ != 403 && status_ != 429) {
        begin_list();
    }
    if (status_ == 403) {
        reason +=
            fmt::format("; it takes the verbs get, list and watch on '{}'", options_.collection);
    }
    fail(std::move(reason), now, retry_after_ ? retry_after_ : status.retry_after);
}

void Reflector::page_too_large(TimePoint now) {
    drop();
    if (page_ == 1) {
        begin_list();
        fail(fmt::format("one object alone makes a list of more than {} bytes",
                         options_.max_page_bytes),
             now);
        return;
    }
    page_ = std::max<std::size_t>(page_ / 4, 1);
    begin_list();
    wait(milliseconds(0), now);
}

void Reflector::page_whole(TimePoint now) {
    const std::string text = std::exchange(body_, {});
    const auto page = document_.parse(text);
    const auto failed = [&](std::string reason) {
        document_.shrink();
        ++counts_.bad;
        begin_list();
        fail(std::move(reason), now);
    };
    if (!page) {
        failed("the API server's list is no JSON: " + page.error().message);
        return;
    }
    const codec::JsonView meta = page->find("metadata");
    const std::string version(string_of(meta.find("resourceVersion")));
    const std::string next(string_of(meta.find("continue")));
    if (version.empty() || version.size() > kMaxVersionBytes || next.size() > kMaxContinueBytes ||
        (page->find("items").present() && !page->find("items").is_null() &&
         page->find("items").type() != codec::JsonType::kArray)) {
        failed("the API server's list has no resourceVersion or no items");
        return;
    }
    page->find("items").each_element([&](std::size_t, codec::JsonView object) {
        put(object, false);
        return true;
    });
    document_.shrink();
    continue_ = next;
    if (!continue_.empty()) {
        wait(milliseconds(0), now);
        return;
    }
    version_ = version;
    list_whole(now);
}

void Reflector::list_whole(TimePoint now) {
    std::vector<std::string> gone;
    for (const auto& [key, known] : known_) {
        if (known.list != list_) gone.push_back(key);
    }
    for (const std::string& key : gone) {
        known_.erase(key);
        sink_.on_gone(key);
    }
    page_ = std::max<std::size_t>(page_, std::min<std::size_t>(options_.page, page_ * 2));
    listed_ = true;
    bad_in_row_ = 0;
    trouble_.clear();
    phase_ = Phase::kWatching;
    wait(milliseconds(0), now);
    sink_.on_listed();
}

/// Leaves out what makes no sense or is over a bound.
void Reflector::put(codec::JsonView object, bool must_be_new) {
    const codec::JsonView meta = object.find("metadata");
    const std::string_view name = string_of(meta.find("name"));
    const std::string_view version = string_of(meta.find("resourceVersion"));
    key_.assign(string_of(meta.find("namespace"))).append("/").append(name);
    if (name.empty() || key_.size() > kMaxKeyBytes || version.size() > kMaxVersionBytes) {
        ++counts_.bad;
        return;
    }
    auto found = known_.find(key_);
    if (found == known_.end()) {
        if (known_.size() >= options_.max_objects) {
            ++counts_.bad;
            if (!std::exchange(said_too_many_, true)) {
                log_warn(
                    "A Kubernetes collection has more objects than are taken; the rest is "
                    "left out.",
                    {{"collection", options_.collection}, {"taken", options_.max_objects}});
            }
            return;
        }
        found = known_.emplace(key_, Known{}).first;
        must_be_new = true;
    }
    found->second.list = list_;
    // Listed again and the same: nothing to tell. An object without a version is always told.
    const bool same = !must_be_new && !version.empty() && found->second.version == version;
    found->second.version.assign(version);
    if (!same) sink_.on_put(key_, object);
}

void Reflector::take_away(codec::JsonView object) {
    const codec::JsonView meta = object.find("metadata");
    const std::string_view name = string_of(meta.find("name"));
    key_.assign(string_of(meta.find("namespace"))).append("/").append(name);
    const auto found = known_.find(key_);
    if (found == known_.end()) return;
    known_.erase(found);
    sink_.on_gone(key_);
}

/// False where the watch is of no use any more.
bool Reflector::on_line(std::string_view line, TimePoint now) {
    const auto event = document_.parse(line);
    if (!event) return bad_event("an event is no JSON: " + event.error().message, now);
    const std::string_view type = string_of(event->find("type"));
    const codec::JsonView object = event->find("object");
    if (type == "ERROR") {
        const Status status = read_status(object, 0);
        if (status.expired()) {
            relist(now);
        } else {
            doubt();
            fail("the watch has ended: " + describe(status), now, status.retry_after);
        }
        return false;
    }
    if (object.type() != codec::JsonType::kObject) return bad_event("an event has no object", now);
    const std::string_view version = string_of(object.find("metadata").find("resourceVersion"));
    if (type == "BOOKMARK") {
        ++counts_.bookmarks;
    } else if (type == "ADDED" || type == "MODIFIED") {
        ++counts_.events;
        put(object, true);
    } else if (type == "DELETED") {
        ++counts_.events;
        take_away(object);
    } else {
        return bad_event("an event is of no known type", now);
    }
    if (version.empty() || version.size() > kMaxVersionBytes) {
        ++counts_.bad;
        return true;
    }
    version_.assign(version);
    bad_in_row_ = 0;
    return true;
}

/// The rest of this watch can't be trusted. What was good so far counts; it goes on from there, and
/// where that helps nothing, from a new list.
bool Reflector::bad_event(std::string reason, TimePoint now) {
    ++counts_.bad;
    drop();
    doubt();
    fail("the API server makes no sense: " + std::move(reason), now);
    return false;
}

/// Where watches go wrong again and again it may be the version that is wrong: a new list.
void Reflector::doubt() {
    if (phase_ != Phase::kWatching || ++bad_in_row_ < kMostBadWatches) return;
    bad_in_row_ = 0;
    begin_list();
}

/// Its time is up, or the connection broke.
void Reflector::watch_over(TimePoint now) {
    lines_.reset();
    if (now - opened_ >= kGoodWatch) backoff_.reset();
    wait(now - opened_ < kShortWatch ? backoff_.next() : backoff_.chance(kSpread), now);
}

}  // namespace stator::kube
