#include "stator/kube/reflector.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <deque>
#include <map>
#include <random>
#include <set>

namespace stator::kube {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

/// What has been told: key to value, where the value is `data` of the object.
class Store final : public ObjectSink {
  public:
    void on_put(std::string_view key, codec::JsonView object) override {
        held[std::string(key)] = std::string(object.find("data").as_string().value_or(""));
        ++puts;
    }
    void on_gone(std::string_view key) override {
        EXPECT_EQ(held.erase(std::string(key)), 1U) << "gone without having been there";
    }
    void on_listed() override { ++lists; }

    std::map<std::string, std::string> held;
    int puts = 0;
    int lists = 0;
};

std::string object(const std::string& name, const std::string& data, int version) {
    return fmt::format(
        R"({{"metadata":{{"namespace":"n","name":"{}","resourceVersion":"{}"}},"data":"{}"}})",
        name, version, data);
}
std::string event(const std::string& type, const std::string& object) {
    return fmt::format(R"({{"type":"{}","object":{}}})", type, object) + "\n";
}
std::string list(const std::vector<std::string>& items, int version, const std::string& next = "") {
    std::string all;
    for (const auto& i : items) all += (all.empty() ? "" : ",") + i;
    return fmt::format(
        R"({{"kind":"List","metadata":{{"resourceVersion":"{}","continue":"{}"}},"items":[{}]}})",
        version, next, all);
}
constexpr std::string_view kExpired =
    R"x({"kind":"Status","code":410,"reason":"Expired","message":"too old: 2 (212)"})x";

class Reflecting : public ::testing::Test {
  protected:
    static ReflectorOptions options() {
        ReflectorOptions o;
        o.collection = "/things";
        o.label_selector = "app=a b,c!=d";
        o.max_event_bytes = 2'000;
        o.max_page_bytes = 5'000;
        return o;
    }
    void make(ReflectorOptions o = options()) { r_.emplace(std::move(o), store_); }
    /// The next call's path, after as much waiting as is asked for.
    std::string call() {
        waited_ = 0ms;
        for (int i = 0; i < 100; ++i) {
            if (auto path = r_->take_call(now_)) return *path;
            const auto left = r_->next_time().left(now_);
            waited_ += std::chrono::ceil<std::chrono::milliseconds>(left);
            now_ = now_ + left;
            r_->on_time(now_);
        }
        return "none";
    }
    void answer(const std::string& body, int status = 200,
                std::optional<std::chrono::seconds> after = {}) {
        r_->on_head(status, after, now_);
        r_->on_body(body, now_);
        r_->on_end("", now_);
    }
    void open_watch(int version) {
        const std::string path = call();
        EXPECT_THAT(path, HasSubstr("watch=1"));
        EXPECT_THAT(path, HasSubstr(fmt::format("resourceVersion={}&", version)));
        r_->on_head(200, {}, now_);
    }
    void feed(const std::string& bytes) { r_->on_body(bytes, now_); }
    void listed(const std::vector<std::string>& items, int version) {
        EXPECT_THAT(call(), Not(HasSubstr("watch")));
        answer(list(items, version));
    }

    Store store_;
    std::optional<Reflector> r_;
    TimePoint now_{1'000'000'000};
    std::chrono::milliseconds waited_{};
};

TEST_F(Reflecting, ListsPageByPageThenWatchesFromThere) {
    make();
    EXPECT_EQ(call(), "/things?limit=100&labelSelector=app%3Da%20b%2Cc%21%3Dd");
    answer(list({object("a", "1", 5)}, 9, "next/1=="));
    EXPECT_EQ(call(),
              "/things?limit=100&labelSelector=app%3Da%20b%2Cc%21%3Dd&continue=next%2F1%3D%3D");
    EXPECT_EQ(store_.lists, 0);
    answer(list({object("b", "2", 7)}, 9));
    EXPECT_EQ(store_.lists, 1);
    EXPECT_THAT(call(), HasSubstr("allowWatchBookmarks=true"));
    r_->on_head(200, {}, now_);
    feed(event("ADDED", object("c", "3", 10)) + event("MODIFIED", object("a", "4", 11)) +
         event("DELETED", object("b", "2", 12)));
    EXPECT_EQ(store_.held, (std::map<std::string, std::string>{{"n/a", "4"}, {"n/c", "3"}}));
    EXPECT_EQ(r_->trouble(), "");
}

TEST_F(Reflecting, ABookmarkIsWhereTheNextWatchBegins) {
    make();
    listed({}, 3);
    open_watch(3);
    feed(event("BOOKMARK", R"({"metadata":{"resourceVersion":"77"}})"));
    now_ = now_ + 300s;
    r_->on_end("", now_);
    open_watch(77);
    EXPECT_LE(waited_, 100ms);
    r_->on_end("connection reset", now_);  // at once: that may go on for ever
    open_watch(77);
    EXPECT_GE(waited_, 400ms);
    EXPECT_EQ(r_->trouble(), "") << "a watch that ends is no trouble as long as the next begins";
}

TEST_F(Reflecting, WhatIsTooOldIsListedAgainAndTheDifferenceTold) {
    for (const bool in_stream : {true, false}) {
        store_ = {};
        make();
        listed({object("a", "1", 1), object("b", "1", 2), object("c", "1", 2)}, 3);
        open_watch(3);
        if (in_stream) {
            feed(event("ERROR", std::string(kExpired)));
            EXPECT_TRUE(r_->take_drop());
        } else {
            r_->on_end("", now_ + 5s);
            now_ = now_ + 5s;
            EXPECT_THAT(call(), HasSubstr("watch"));
            answer(std::string(kExpired), 410);
        }
        EXPECT_EQ(store_.held.size(), 3U) << "what is known stays known";
        const int puts = store_.puts;
        listed({object("a", "1", 1), object("b", "2", 8), object("d", "1", 9)}, 10);
        EXPECT_EQ(store_.held,
                  (std::map<std::string, std::string>{{"n/a", "1"}, {"n/b", "2"}, {"n/d", "1"}}));
        EXPECT_EQ(store_.puts, puts + 2) << "what is the same is not told";
        EXPECT_EQ(r_->counts().expired, 1U);
        EXPECT_EQ(r_->trouble(), "");
        open_watch(10);
    }
}

TEST_F(Reflecting, AContinueTokenThatHasExpiredBeginsTheListAnew) {
    make();
    (void)call();
    answer(list({object("a", "1", 1)}, 9, "old"));
    EXPECT_THAT(call(), HasSubstr("continue=old"));
    answer(std::string(kExpired), 410);
    EXPECT_THAT(call(), Not(HasSubstr("continue")));
    answer(list({object("b", "1", 1)}, 12));
    EXPECT_EQ(store_.held, (std::map<std::string, std::string>{{"n/b", "1"}}));
}

TEST_F(Reflecting, FailuresAreTriedAgainWithPatienceAndNothingIsForgotten) {
    make();
    listed({object("a", "1", 1)}, 3);
    std::chrono::milliseconds longest{};
    for (int i = 0; i < 12; ++i) {
        EXPECT_THAT(call(), HasSubstr("resourceVersion=3"));
        longest = std::max(longest, waited_);
        EXPECT_LE(waited_, 30s);
        r_->on_end("connection refused", now_);
        EXPECT_THAT(r_->trouble(), HasSubstr("refused"));
    }
    EXPECT_GE(longest, 15s);
    EXPECT_EQ(store_.held.size(), 1U);
    open_watch(3);
    EXPECT_EQ(r_->trouble(), "");
}

TEST_F(Reflecting, RetryAfterIsHonoured) {
    make();
    (void)call();
    answer("", 429, 17s);
    (void)call();
    EXPECT_GE(waited_, 17s);
    answer(R"({"kind":"Status","code":503,"details":{"retryAfterSeconds":40}})", 503);
    EXPECT_THAT(r_->trouble(), HasSubstr("503"));
    (void)call();
    EXPECT_GE(waited_, 40s);
}

TEST_F(Reflecting, ARefusedTokenIsReadAgainAtOnceAndThenWithPatience) {
    make();
    (void)call();
    answer("", 401);
    EXPECT_TRUE(r_->take_token_refused());
    EXPECT_EQ(r_->trouble(), "");
    (void)call();
    EXPECT_EQ(waited_, 0ms);
    answer("", 401);
    EXPECT_TRUE(r_->take_token_refused());
    EXPECT_THAT(r_->trouble(), HasSubstr("401"));
    (void)call();
    EXPECT_GT(waited_, 0ms);
    answer(R"({"kind":"Status","code":403,"reason":"Forbidden","message":"no"})", 403);
    EXPECT_THAT(r_->trouble(), HasSubstr("get, list and watch on '/things'"));
    listed({}, 1);
    EXPECT_EQ(r_->trouble(), "");
}

TEST_F(Reflecting, SilenceIsNotTrusted) {
    make();
    listed({}, 3);
    open_watch(3);
    now_ = now_ + 74s;
    r_->on_time(now_);
    EXPECT_FALSE(r_->take_drop());
    now_ = now_ + 2s;
    r_->on_time(now_);
    EXPECT_TRUE(r_->take_drop());
    EXPECT_EQ(r_->counts().silent, 1U);
    open_watch(3);
    // One that speaks but never ends is cut off a while after its time.
    for (int i = 0; i < 60 && !r_->take_drop(); ++i) {
        feed("\n");
        now_ = now_ + 60s;
        r_->on_time(now_);
        EXPECT_LT(i, 12);
    }
    EXPECT_THAT(call(), HasSubstr("watch"));
    // A server that takes the call and says nothing.
    now_ = now_ + 31s;
    r_->on_time(now_);
    EXPECT_TRUE(r_->take_drop());
    EXPECT_THAT(r_->trouble(), HasSubstr("silent"));
}

TEST_F(Reflecting, NonsenseEndsAWatchThatGoesOnFromTheLastGoodEvent) {
    for (const std::string& nonsense :
         {std::string("{\"type\":\n"), std::string("[]\n"), std::string("\"x\"\n"),
          std::string("{\"type\":\"ADDED\"}\n"), std::string("{\"type\":\"NEW\",\"object\":{}}\n"),
          std::string("{\"type\":7,\"object\":{}}\n"), std::string(3'000, 'x')}) {
        store_ = {};
        make();
        listed({}, 3);
        open_watch(3);
        feed(event("ADDED", object("a", "1", 4)) + nonsense);
        EXPECT_TRUE(r_->take_drop()) << nonsense.substr(0, 40);
        EXPECT_THAT(r_->trouble(), HasSubstr("makes no sense"));
        feed(event("DELETED", object("a", "1", 5)));
        EXPECT_EQ(store_.held.size(), 1U) << "nothing of a cut off watch counts";
        open_watch(4);
        feed(nonsense);
        EXPECT_TRUE(r_->take_drop());
        open_watch(4);
        feed(nonsense);
        EXPECT_TRUE(r_->take_drop());
        EXPECT_THAT(call(), Not(HasSubstr("watch"))) << "it is listed anew in the end";
    }
}

TEST_F(Reflecting, ObjectsWithoutFieldsAreSkipped) {
    make();
    listed({"{}", "7", "null", R"({"metadata":{}})", R"({"metadata":{"name":5}})",
            R"({"metadata":{"name":"x"}})", object("a", "1", 2)},
           3);
    EXPECT_EQ(store_.held.size(), 2U);
    open_watch(3);
    feed(event("ADDED", "{}") + event("DELETED", "{}") + event("BOOKMARK", "{}") +
         event("DELETED", object("never", "", 5)) + event("MODIFIED", object("a", "2", 6)));
    EXPECT_EQ(store_.held["n/a"], "2");
    EXPECT_FALSE(r_->take_drop());
    EXPECT_GT(r_->counts().bad, 5U);
}

TEST_F(Reflecting, ListsThatAreNone) {
    make();
    for (const std::string bad :
         {"", "{", "[]", "{}", R"({"metadata":{"resourceVersion":""},"items":[]})",
          R"({"metadata":{"resourceVersion":"1"},"items":{}})"}) {
        EXPECT_THAT(call(), Not(HasSubstr("watch")));
        answer(bad);
        EXPECT_NE(r_->trouble(), "") << bad;
        EXPECT_FALSE(r_->listed());
    }
    (void)call();
    answer(R"({"metadata":{"resourceVersion":"1"},"items":null})");
    EXPECT_TRUE(r_->listed()) << "no items is how an empty list may be written";
}

TEST_F(Reflecting, APageThatIsTooLargeIsAskedForInSmallerOnes) {
    make();
    (void)call();
    r_->on_head(200, {}, now_);
    feed(std::string(6'000, ' '));
    EXPECT_TRUE(r_->take_drop());
    EXPECT_THAT(call(), HasSubstr("limit=25&"));
    r_->on_head(200, {}, now_);
    feed(std::string(6'000, ' '));
    EXPECT_TRUE(r_->take_drop());
    EXPECT_THAT(call(), HasSubstr("limit=6&"));
    answer(list({}, 1));
    EXPECT_EQ(r_->trouble(), "");
}

TEST_F(Reflecting, MoreObjectsThanAreTakenAreLeftOut) {
    auto o = options();
    o.max_objects = 2;
    make(o);
    listed({object("a", "1", 1), object("b", "1", 1), object("c", "1", 1)}, 3);
    EXPECT_EQ(store_.held.size(), 2U);
}

TEST_F(Reflecting, ErrorsWithinAWatch) {
    make();
    listed({}, 3);
    for (int i = 0; i < 2; ++i) {
        open_watch(3);
        feed(event("ERROR", R"({"code":500,"message":"etcd is gone"})"));
        EXPECT_TRUE(r_->take_drop());
        EXPECT_THAT(r_->trouble(), HasSubstr("etcd is gone"));
    }
    open_watch(3);
    feed(event("ERROR", "7"));
    EXPECT_THAT(call(), Not(HasSubstr("watch"))) << "perhaps the version is what is wrong";
}

/// An API server as far as a collection goes, which keeps its last `kept` events.
class Server {
  public:
    explicit Server(std::uint64_t seed) : random_(seed) {}

    void change() {
        const std::string name = "o" + std::to_string(random_() % 12);
        ++version_;
        const auto found = objects_.find(name);
        if (found != objects_.end() && random_() % 3 == 0) {
            log_.emplace_back(version_,
                              event("DELETED", object(name, found->second.first, version_)));
            objects_.erase(found);
        } else {
            const bool is_new = found == objects_.end();
            objects_[name] = {std::to_string(random_() % 1000), version_};
            log_.emplace_back(version_, event(is_new ? "ADDED" : "MODIFIED",
                                              object(name, objects_[name].first, version_)));
        }
        while (log_.size() > 15) {
            oldest_ = log_.front().first;
            log_.pop_front();
        }
    }
    [[nodiscard]] std::string page(const std::string& path, std::uint64_t& pages) {
        // The whole list is a snapshot at the first page, as etcd has it.
        std::string from;
        if (const auto at = path.find("continue="); at != std::string::npos) {
            from = path.substr(at + 9);
        } else {
            snapshot_ = objects_;
            snapshot_version_ = version_;
        }
        std::vector<std::string> items;
        std::string next;
        for (auto i = snapshot_.upper_bound(from); i != snapshot_.end(); ++i) {
            if (items.size() == 3) {
                next = std::prev(i)->first;
                break;
            }
            items.push_back(object(i->first, i->second.first, i->second.second));
        }
        ++pages;
        return list(items, snapshot_version_, next);
    }
    /// What a watch from `version` would have had by now; empty where that is too old.
    [[nodiscard]] std::optional<std::string> since(int version) const {
        if (version < oldest_) return {};
        std::string out;
        for (const auto& [v, text] : log_) {
            if (v > version) out += text;
        }
        return out;
    }
    [[nodiscard]] int version() const { return version_; }
    [[nodiscard]] std::map<std::string, std::string> contents() const {
        std::map<std::string, std::string> out;
        for (const auto& [name, o] : objects_) out["n/" + name] = o.first;
        return out;
    }
    std::mt19937_64 random_;

  private:
    std::map<std::string, std::pair<std::string, int>> objects_;
    std::map<std::string, std::pair<std::string, int>> snapshot_;
    int snapshot_version_ = 0;
    std::deque<std::pair<int, std::string>> log_;
    int version_ = 1;
    int oldest_ = 0;
};

// Whatever goes wrong on the way, in the end there is what the server has.
TEST(ReflectorProperty, EndsWithWhatTheServerHas) {
    EXPECT_TRUE(rc::check([](std::uint64_t seed) {
        Server server(seed);
        auto& random = server.random_;
        Store store;
        ReflectorOptions options;
        options.collection = "/things";
        options.random_seed = seed;
        Reflector r(options, store);
        TimePoint now{1};
        std::uint64_t pages = 0;
        const auto feed = [&](std::string_view bytes) {
            while (!bytes.empty()) {
                const std::size_t n = 1 + random() % 40;
                r.on_body(bytes.substr(0, n), now);
                bytes.remove_prefix(std::min(n, bytes.size()));
            }
        };
        for (int step = 0; step < 400; ++step) {
            const bool calm = step > 330;  // long enough for the longest wait and a list
            if (!calm && random() % 2 == 0) server.change();
            auto path = r.take_call(now);
            (void)r.take_drop();
            if (!path) {
                now = now + r.next_time().left(now);
                r.on_time(now);
                continue;
            }
            const auto fault = calm ? 9 : random() % 10;
            if (fault == 0) {
                r.on_end("refused", now);
            } else if (fault == 1) {
                r.on_head(500 + static_cast<int>(random() % 5), {}, now);
                r.on_end("", now);
            } else if (fault == 2) {
                r.on_head(random() % 2 == 0 ? 401 : 429, std::chrono::seconds(1), now);
                r.on_end("", now);
            } else if (!path->contains("watch=1")) {
                r.on_head(200, {}, now);
                const std::string page = server.page(*path, pages);
                if (fault == 3) {
                    feed(std::string_view(page).substr(0, page.size() / 2));
                    r.on_end("cut short", now);
                } else {
                    feed(page);
                    r.on_end("", now);
                }
            } else {
                const auto at = path->find("resourceVersion=") + 16;
                int version = std::stoi(path->substr(at));
                if (!server.since(version) && fault % 2 == 0) {
                    r.on_head(410, {}, now);
                    feed(kExpired);
                    r.on_end("", now);
                    continue;
                }
                r.on_head(200, {}, now);
                for (int i = 0; i < 5; ++i) {
                    const auto events = server.since(version);
                    if (!events) {
                        feed(event("ERROR", std::string(kExpired)));
                        break;
                    }
                    version = server.version();
                    if (fault == 4) {
                        feed(std::string_view(*events).substr(0, events->size() / 2));
                        break;
                    }
                    feed(*events);
                    if (fault == 5) feed("{nonsense\n");
                    if (!calm) server.change();
                }
                now = now + std::chrono::seconds(random() % 20);
                if (!r.take_drop()) r.on_end("reset", now);
            }
        }
        RC_ASSERT(store.held == server.contents());
        RC_ASSERT(r.trouble().empty());
    }));
}

}  // namespace
}  // namespace stator::kube
