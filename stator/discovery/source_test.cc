#include "stator/discovery/source.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>

#include "stator/discovery/sources.h"
#include "stator/discovery/worker_file.h"
#include "stator/net/scripted_server.h"

namespace stator::discovery {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr std::chrono::seconds kPatience{20};

Candidate at(const std::string& address, std::map<std::string, std::string> labels = {}) {
    return {*net::parse_socket_address(address), std::move(labels)};
}

/// What a source has told, for the test's thread to wait for.
class Told {
  public:
    Source::Changed changed() {
        return [this](std::vector<Candidate> set) {
            const std::scoped_lock lock(mutex_);
            EXPECT_TRUE(sets_.empty() || sets_.back() != set) << "the same set twice in a row";
            sets_.push_back(std::move(set));
            changed_.notify_all();
        };
    }
    bool wait(const std::vector<Candidate>& set) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, kPatience,
                                 [&] { return !sets_.empty() && sets_.back() == set; });
    }
    [[nodiscard]] std::size_t calls() const {
        const std::scoped_lock lock(mutex_);
        return sets_.size();
    }

  private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::vector<Candidate>> sets_;
};

class Sources : public ::testing::Test {
  protected:
    Sources() {
        std::string name = (std::filesystem::temp_directory_path() / "stator-XXXXXX").string();
        root_ = ::mkdtemp(name.data());
        folder_ = root_ + "/workers";
        loop_.start();
    }
    ~Sources() override {
        if (source_) on_loop([&] { source_->stop(); });
        loop_.stop();
        std::error_code ignored;
        std::filesystem::remove_all(root_, ignored);
    }
    void on_loop(const std::function<void()>& f) {
        std::promise<void> done;
        ASSERT_TRUE(loop_.post([&] {
            f();
            done.set_value();
        }));
        done.get_future().wait();
    }
    void start(const std::string& text) {
        source_ = make_source(text, loop_, told_.changed()).value();
    }
    std::unique_ptr<Announcement> announce(const std::string& name, const Candidate& candidate) {
        return Announcement::write(folder_, name, candidate).value();
    }
    bool wait_healthy(bool healthy) {
        std::string reason;
        for (int i = 0; i < 2000; ++i) {
            if (source_->healthy(reason) == healthy) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }

    std::string root_;
    std::string folder_;
    runtime::Loop loop_{"loop"};
    Told told_;
    std::shared_ptr<Source> source_;
};

TEST(CheckSource, ReadsTheFormsAndShowsThemWhereItCant) {
    for (const auto* good :
         {"h:1", "tcp://h:1", "unix:/s", "static:h:1", "static:h:1,unix:/s,[::1]:2", "dir:/path",
          "dns:name:80", "kubernetes:prod/workers", "kubernetes:./workers?port=7000",
          "kubernetes:prod/a.b/c in (d, e),!f?port=stator"}) {
        EXPECT_TRUE(check_source(good)) << good;
    }
    for (const auto* bad : {"",
                            "h",
                            "static:",
                            "static:h:1,",
                            "static:h:1,,i:2",
                            "dir:",
                            "dir:path",
                            "dns:",
                            "dns:name",
                            "dns:name:0",
                            "dns:unix:/s",
                            "kubernetes:x",
                            "kubernetes:/x",
                            "kubernetes:Prod/x",
                            "kubernetes:a.b/x",
                            "kubernetes:n/",
                            "kubernetes:n/a_b",
                            "kubernetes:n/x?port=",
                            "kubernetes:n/x?port=0",
                            "kubernetes:n/x?port=65536",
                            "kubernetes:n/x?port=Http",
                            "kubernetes:n/x?limit=5",
                            "kubernetes:n/x\ny=z"}) {
        const auto result = check_source(bad);
        ASSERT_FALSE(result) << bad;
        EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
        EXPECT_THAT(result.error().message, HasSubstr("dir:/path"));
    }
}

TEST(WorkerFile, WhatIsWrittenIsReadBack) {
    EXPECT_TRUE(rc::check([](const std::map<std::string, std::string>& labels) {
        const Candidate candidate = at("unix:/run/worker", labels);
        const auto text = format_worker_file(candidate);
        if (text) RC_ASSERT(parse_worker_file(*text) == candidate);
    }));
    const Candidate candidate = at("[::1]:7", {{"zone", "a=b c"}, {"pod/ip", ""}});
    EXPECT_EQ(parse_worker_file(format_worker_file(candidate).value()), candidate);
}

TEST(WorkerFile, RefusesWhatIsNoWorkersFile) {
    for (const std::string& bad :
         {std::string(), std::string("\n"), std::string("nonsense"), std::string("h:1\nlabel"),
          std::string("h:1\n=x"), std::string("h:1\na=1\na=2"), std::string("h:1\na=\x01"),
          std::string("h:1\na=") + std::string(5000, 'x')}) {
        EXPECT_FALSE(parse_worker_file(bad)) << bad.substr(0, 20);
    }
    EXPECT_FALSE(format_worker_file(at("h:1", {{"a", std::string(5000, 'x')}})));
    EXPECT_FALSE(format_worker_file(at("h:1", {{"a", "two\nlines"}})));
}

TEST_F(Sources, AStaticListIsToldOnceEachAddressOnce) {
    start("static:b:2,a:1,b:2");
    EXPECT_TRUE(told_.wait({at("a:1"), at("b:2")}));
    EXPECT_EQ(source_->name(), "static:b:2,a:1,b:2");
    EXPECT_EQ(told_.calls(), 1U);
}

TEST_F(Sources, AFolderMayComeLaterAndItsWorkersComeAndGo) {
    start("dir:" + folder_);
    ASSERT_TRUE(wait_healthy(false));
    std::string reason;
    EXPECT_FALSE(source_->healthy(reason));
    EXPECT_THAT(reason, HasSubstr(folder_));
    auto one = announce("one", at("h:1", {{"zone", "a"}}));
    ASSERT_TRUE(told_.wait({at("h:1", {{"zone", "a"}})}));
    EXPECT_TRUE(wait_healthy(true));
    auto two = announce("two", at("unix:/s"));
    ASSERT_TRUE(told_.wait({at("h:1", {{"zone", "a"}}), at("unix:/s")}));
    auto again = announce("one", at("h:9"));  // the next of that name
    ASSERT_TRUE(told_.wait({at("h:9"), at("unix:/s")}));
    one.reset();  // must not take its successor's file away
    two.reset();
    ASSERT_TRUE(told_.wait({at("h:9")}));
    EXPECT_TRUE(std::filesystem::exists(folder_ + "/one.worker"));
    again.reset();
    EXPECT_TRUE(told_.wait({}));
    EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "no temporary file is left";
}

TEST_F(Sources, AFolderThatVanishesKeepsTheLastSetUntilItIsBack) {
    auto one = announce("one", at("h:1"));
    start("dir:" + folder_);
    ASSERT_TRUE(told_.wait({at("h:1")}));
    std::filesystem::rename(folder_, root_ + "/away");
    ASSERT_TRUE(wait_healthy(false));
    EXPECT_EQ(told_.calls(), 1U);
    auto two = announce("two", at("h:2"));
    EXPECT_TRUE(told_.wait({at("h:2")}));
    // The new folder is watched, not only looked at now and then.
    auto three = announce("three", at("h:3"));
    EXPECT_TRUE(told_.wait({at("h:2"), at("h:3")}));
}

TEST_F(Sources, ABurstOfChangesIsFewCalls) {
    start("dir:" + folder_);
    std::vector<std::unique_ptr<Announcement>> all;
    std::vector<Candidate> expected;
    for (int i = 0; i < 500; ++i) {
        const auto candidate = at("h:" + std::to_string(1000 + i));
        all.push_back(announce(std::to_string(i), candidate));
        expected.push_back(candidate);
    }
    EXPECT_TRUE(told_.wait(expected));
    EXPECT_LT(told_.calls(), 100U);
}

TEST_F(Sources, BadFilesAreSkippedAndSaidOnce) {
    auto good = announce("good", at("h:1"));
    std::ofstream(folder_ + "/empty.worker");
    std::ofstream(folder_ + "/large.worker") << "h:2\n" << std::string(5000, '\n');
    std::ofstream(folder_ + "/other.txt") << "h:3\n";
    std::ofstream(folder_ + "/.hidden.worker") << "h:4\n";
    std::filesystem::create_directory(folder_ + "/folder.worker");
    ASSERT_EQ(::mkfifo((folder_ + "/fifo.worker").c_str(), 0600), 0);
    ASSERT_EQ(::symlink("/etc/hostname", (folder_ + "/link.worker").c_str()), 0);
    ::testing::internal::CaptureStderr();
    start("dir:" + folder_);
    ASSERT_TRUE(told_.wait({at("h:1")}));
    auto more = announce("more", at("h:5"));
    ASSERT_TRUE(told_.wait({at("h:1"), at("h:5")}));
    on_loop([] {});
    const std::string log = ::testing::internal::GetCapturedStderr();
    for (const std::string name : {"empty", "large", "folder", "fifo", "link"}) {
        const auto first = log.find(name + ".worker");
        EXPECT_NE(first, std::string::npos) << name;
        EXPECT_EQ(log.find(name + ".worker", first + 1), std::string::npos) << name;
    }
    // Mended in place, it is taken.
    std::ofstream(folder_ + "/empty.worker") << "h:6\n";
    EXPECT_TRUE(told_.wait({at("h:1"), at("h:5"), at("h:6")}));
}

TEST_F(Sources, AFolderOthersMayWriteIntoIsNotBelieved) {
    auto good = announce("good", at("h:1"));
    ASSERT_EQ(::chmod(folder_.c_str(), 0777), 0);
    start("dir:" + folder_);
    ASSERT_TRUE(wait_healthy(false));
    std::string reason;
    EXPECT_FALSE(source_->healthy(reason));
    EXPECT_THAT(reason, HasSubstr("others may write"));
    EXPECT_EQ(told_.calls(), 0U);
    EXPECT_EQ(Announcement::write(folder_, "x", at("h:1")).error().code,
              ErrorCode::kPermissionDenied);
    ASSERT_EQ(::chmod(folder_.c_str(), 0700), 0);
    EXPECT_TRUE(told_.wait({at("h:1")}));
}

TEST_F(Sources, StoppedItIsSilent) {
    start("dir:" + folder_);
    on_loop([&] { source_->stop(); });
    auto one = announce("one", at("h:1"));
    on_loop([] {});
    EXPECT_EQ(told_.calls(), 0U);
}

TEST_F(Sources, ADnsNameIsAskedAgainAndAFailureKeepsTheLastSet) {
    using Answer = Result<std::vector<std::string>>;
    const Answer down = error(ErrorCode::kUnavailable, "no name server");
    // One answer a question; the last goes on.
    const std::vector<Answer> answers{std::vector<std::string>{"10.0.0.2", "::1", "10.0.0.2"},
                                      std::vector<std::string>{"::1", "10.0.0.2"}, down, down,
                                      std::vector<std::string>{"10.0.0.3"}};
    ::testing::internal::CaptureStderr();
    std::size_t asked = 0;
    const auto source = make_dns_source(
        "workers.test", 7, 1ms,
        [&](const std::string& host, const Resolved& done) {
            EXPECT_EQ(host, "workers.test");
            loop_.post([&, done] { done(answers[std::min(asked++, answers.size() - 1)]); });
        },
        loop_, whole_sets(told_.changed()));
    source_ = source;
    on_loop([&] { source->start(); });
    ASSERT_TRUE(told_.wait({at("10.0.0.3:7")}));
    on_loop([&] { source->stop(); });
    on_loop([] {});
    EXPECT_EQ(told_.calls(), 2U) << "the same set in another order, then two failures, are no news";
    const std::string log = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(log, HasSubstr("no name server"));
    EXPECT_EQ(log.find("no name server"), log.rfind("no name server"));
    EXPECT_THAT(log, HasSubstr("works again"));
}

TEST_F(Sources, TheSystemResolvesLocalhost) {
    std::promise<Result<std::vector<std::string>>> promise;
    Resolve resolve;
    on_loop([&] {
        resolve = system_resolver(loop_);
        resolve("localhost", [&](Result<std::vector<std::string>> found) {
            promise.set_value(std::move(found));
        });
    });
    const auto found = promise.get_future().get();
    on_loop([&] { resolve = nullptr; });
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_THAT(*found,
                ::testing::AnyOf(::testing::Contains("127.0.0.1"), ::testing::Contains("::1")));
}

TEST_F(Sources, EndpointSlicesAreToldAsTheyChangeAndKeptWhenTheServerGoes) {
    const auto slice = [](const std::string& version, const std::string& host) {
        return R"({"metadata":{"name":"s","namespace":"prod","resourceVersion":")" + version +
               R"("},"addressType":"IPv4","ports":[{"name":"x","port":7}],"endpoints":[)" +
               R"({"addresses":[")" + host +
               R"("],"zone":"z","targetRef":{"kind":"Pod","name":"p",)" + R"("uid":")" + host +
               R"("}}]})";
    };
    auto server = std::make_unique<net::ScriptedServer>([&](net::ScriptedConnection& c) {
        while (true) {
            const std::string request = c.read_request();
            if (request.empty()) return;
            EXPECT_THAT(request, HasSubstr("/namespaces/prod/endpointslices?"));
            EXPECT_THAT(request, HasSubstr("labelSelector=kubernetes.io%2Fservice-name%3Dworkers"));
            if (!request.contains("watch=1")) {
                c.answer(R"({"metadata":{"resourceVersion":"1"},"items":[)" +
                         slice("1", "10.0.0.1") + "]}");
                continue;
            }
            const std::string line =
                R"({"type":"MODIFIED","object":)" + slice("2", "10.0.0.2") + "}\n";
            c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
                   fmt::format("{:x}\r\n{}\r\n", line.size(), line));
            c.await_end();
        }
    });
    SourceOptions options;
    options.kube.api = server->url();
    source_ = make_source("kubernetes:prod/workers", loop_, told_.changed(), options).value();
    const std::map<std::string, std::string> labels{{"pod", "p"}, {"zone", "z"}};
    ASSERT_TRUE(told_.wait({at("10.0.0.2:7", labels)}));
    EXPECT_TRUE(wait_healthy(true));
    const std::size_t calls = told_.calls();
    server.reset();
    EXPECT_TRUE(wait_healthy(false));
    EXPECT_EQ(told_.calls(), calls);
}

TEST_F(Sources, MoreCandidatesThanAreTakenAreLeftOut) {
    std::vector<net::SocketAddress> addresses;
    for (std::size_t i = 0; i <= kMaxCandidates; ++i) {
        addresses.push_back(*net::parse_socket_address("h" + std::to_string(i) + ":1"));
    }
    std::size_t taken = 0;
    const auto source = make_static_source("many", addresses, loop_,
                                           [&](const Difference& all) { taken = all.put.size(); });
    on_loop([&] { source->start(); });
    EXPECT_EQ(taken, kMaxCandidates);
}

TEST_F(Sources, TheDefaultFolderIsRefusedWhereOthersMayWrite) {
    ::setenv("XDG_RUNTIME_DIR", root_.c_str(), 1);
    EXPECT_EQ(default_folder().value(), root_ + "/stator");
    std::filesystem::create_directory(root_ + "/stator");
    for (const mode_t mode : {0777, 0770, 01777}) {
        ASSERT_EQ(::chmod((root_ + "/stator").c_str(), mode), 0);
        const auto refused = default_folder();
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
        EXPECT_THAT(refused.error().message, HasSubstr("others may write"));
    }
    ASSERT_EQ(::chmod((root_ + "/stator").c_str(), 0755), 0);
    EXPECT_TRUE(default_folder());
    if (::geteuid() == 0) {
        ASSERT_EQ(::chown((root_ + "/stator").c_str(), 12345, 12345), 0);
        EXPECT_THAT(default_folder().error().message, HasSubstr("belongs to user 12345"));
    }
    ::unsetenv("XDG_RUNTIME_DIR");
}

TEST_F(Sources, NamesThatDoNotFitAFileAreRefused) {
    for (const std::string name : {"", ".x", "a/b", "..", "a b"}) {
        EXPECT_EQ(Announcement::write(folder_, name, at("h:1")).error().code,
                  ErrorCode::kInvalidArgument);
    }
}

}  // namespace
}  // namespace stator::discovery
