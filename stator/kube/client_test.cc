#include "stator/kube/client.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <set>

#include "stator/kube/elector.h"
#include "stator/kube/scale.h"
#include "stator/kube/status.h"
#include "stator/kube/watcher.h"
#include "stator/net/scripted_server.h"
#include "stator/net/stream_fixture.h"
#include "stator/net/tls_fixture.h"

namespace stator::kube {
namespace {

using namespace std::chrono_literals;
using net::on_loop;
using net::ScriptedConnection;
using net::ScriptedServer;
using testing::ElementsAre;
using testing::HasSubstr;

const Request kAsk{"GET", "/x", "", ""};

void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

TEST(FindAccess, InAPodAndOutside) {
    const net::TemporaryFolder folder;
    std::map<std::string, std::string> variables;
    const auto variable = [&](const char* name) { return variables[name]; };
    const std::string here = folder.file("");
    const auto nowhere = find_access({}, variable, here);
    ASSERT_FALSE(nowhere);
    EXPECT_THAT(nowhere.error().message, HasSubstr("--kube-api"));
    variables = {{"KUBERNETES_SERVICE_HOST", "fd00::1"}, {"KUBERNETES_SERVICE_PORT", "443"}};
    write(folder.file("namespace"), "prod\n");
    auto pod = find_access({}, variable, here).value();
    EXPECT_EQ(pod.api.address.host, "fd00::1");
    EXPECT_EQ(pod.api.authority, "[fd00::1]:443");
    EXPECT_TRUE(pod.api.tls);
    EXPECT_EQ(pod.token_file, here + "/token");
    EXPECT_EQ(pod.ca_file, here + "/ca.crt");
    EXPECT_EQ(pod.own_namespace, "prod");
    variables["KUBERNETES_SERVICE_HOST"] = "10.0.0.1";
    EXPECT_EQ(find_access({}, variable, here)->api.authority, "10.0.0.1:443");
    AccessOptions said;
    said.api = "https://[::1]:6443";
    EXPECT_EQ(find_access(said, variable, here)->token_file, "");
    said.token_file = "/t";
    said.api = "http://10.0.0.1:80";
    EXPECT_THAT(find_access(said, variable, here).error().message, HasSubstr("clear text"));
    said.api = "http://127.0.0.1:80";
    EXPECT_TRUE(find_access(said, variable, here));
    said.api = "nonsense";
    EXPECT_FALSE(find_access(said, variable, here));
}

TEST(Token, IsReadAgainEachMinuteAndWhenItIsRefused) {
    Result<std::string> file = error(ErrorCode::kNotFound, "no file");
    TokenFile token([&] { return file; });
    TimePoint now{1};
    EXPECT_THAT(token.get(now).error().message, HasSubstr("no file"));
    file = "one";
    EXPECT_EQ(token.get(now).value(), "one");
    file = "two";
    EXPECT_EQ(token.get(now + 59s).value(), "one");
    EXPECT_EQ(token.get(now + 61s).value(), "two");
    file = "three";
    token.refused();
    EXPECT_EQ(token.get(now + 62s).value(), "three");
    for (const std::string bad : {"", "a b", "a\nb"}) {
        file = bad;
        token.refused();
        EXPECT_EQ(token.get(now + 63s).value(), "three") << "the last good one stays";
    }
}

TEST(Statuses, AreReadWhateverTheyAre) {
    EXPECT_EQ(describe(read_status("", 502)), "the API server answered 502");
    EXPECT_EQ(describe(read_status("<html>\n", 502)), "the API server answered 502: <html> ");
    EXPECT_EQ(describe(read_status("\xff\xfe\x01", 500)), "the API server answered 500: ?? ");
    const auto s = read_status(
        R"({"code":429,"reason":"TooMany","message":"m","details":{"retryAfterSeconds":5}})", 500);
    EXPECT_EQ(describe(s), "the API server answered 429 (TooMany): m");
    EXPECT_EQ(s.retry_after, 5s);
    EXPECT_TRUE(read_status(R"({"reason":"Expired"})", 200).expired());
    EXPECT_EQ(read_retry_after("7"), 7s);
    EXPECT_EQ(read_retry_after("99999"), 600s);
    for (const std::string none : {"", "x", "-1", "7x", "Wed, 21 Oct 2026 07:28:00 GMT"}) {
        EXPECT_FALSE(read_retry_after(none)) << none;
    }
}

TEST(Scales, AreAskedForAndRead) {
    const auto target = parse_scale_target("lws/decode", "prod").value();
    EXPECT_EQ(get_scale(target).path,
              "/apis/leaderworkerset.x-k8s.io/v1/namespaces/prod/leaderworkersets/decode/scale");
    const auto other = parse_scale_target("other/deployment/a.b", "prod").value();
    EXPECT_EQ(set_scale(other, 3).path, "/apis/apps/v1/namespaces/other/deployments/a.b/scale");
    EXPECT_EQ(set_scale(other, -3).body, R"({"spec":{"replicas":0}})");
    EXPECT_EQ(parse_scale_target("statefulset/x", "n")->kind, ScaleTarget::Kind::kStatefulSet);
    for (const std::string bad : {"", "x", "deployment/", "pod/x", "deployment/x y",
                                  "/deployment/x", "a/b/deployment/x", "N/deployment/x"}) {
        EXPECT_FALSE(parse_scale_target(bad, "n")) << bad;
    }
    const auto scale = read_scale({200, R"({"kind":"Scale","spec":{"replicas":4},)"
                                        R"("status":{"replicas":3,"selector":"app=x"}})"});
    EXPECT_EQ(scale->wanted, 4);
    EXPECT_EQ(scale->present, 3);
    EXPECT_EQ(scale->pod_selector, "app=x");
    EXPECT_EQ(read_scale({200, R"({"kind":"Scale","spec":{}})"})->wanted, 0);
    EXPECT_EQ(read_scale({404, "{}"}).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(read_scale({403, ""}).error().code, ErrorCode::kPermissionDenied);
    for (const std::string bad :
         {"", "{}", "[]", R"({"kind":"Scale"})", R"({"kind":"Scale","spec":{"replicas":-1}})"}) {
        EXPECT_EQ(read_scale({200, bad}).error().code, ErrorCode::kDataLoss) << bad;
    }
    EXPECT_THAT(set_deletion_cost("n", "p", -5).body, HasSubstr("deletion-cost\":\"-5\""));
}

class Clients : public ::testing::Test {
  protected:
    Clients() {
        loop_.start();
        write(folder_.file("token"), "first\n");
    }
    ~Clients() override {
        on_loop(loop_, [&] {
            if (client_) client_->stop();
        });
        on_loop(loop_, [&] { client_.reset(); });
        loop_.stop();
    }
    void connect(const std::string& url, const std::string& ca = "") {
        AccessOptions options;
        options.api = url;
        options.token_file = folder_.file("token");
        options.ca_file = ca;
        client_ = on_loop(loop_, [&] {
            return Client::create(loop_, find_access(options).value(), Clock::real()).value();
        });
    }
    Result<Answer> call(Request request) {
        std::promise<Result<Answer>> promise;
        on_loop(loop_, [&] {
            client_->call(std::move(request),
                          [&](Result<Answer> a) { promise.set_value(std::move(a)); });
        });
        return promise.get_future().get();
    }

    net::TemporaryFolder folder_;
    runtime::Loop loop_{"loop"};
    std::shared_ptr<Client> client_;
};

TEST_F(Clients, ARotatedTokenIsReadWhenTheOldOneIsRefused) {
    ScriptedServer server([&](ScriptedConnection& c) {
        while (true) {
            const std::string request = c.read_request();
            if (request.empty()) return;
            const bool old = request.contains("Authorization: Bearer first\r\n");
            if (old) write(folder_.file("token"), "second");
            EXPECT_TRUE(old || request.contains("Authorization: Bearer second\r\n")) << request;
            c.answer("{}", old ? "401 Unauthorized" : "200 OK");
        }
    });
    connect(server.url());
    EXPECT_EQ(call({.method = "GET", .path = "/x", .content_type = "", .body = ""})->status, 200);
}

TEST_F(Clients, ABusyServerIsAskedOnceMore) {
    std::atomic<int> asked = 0;
    ScriptedServer server([&](ScriptedConnection& c) {
        while (!c.read_request().empty()) {
            if (asked++ == 0) {
                c.send("HTTP/1.1 429 Too Many\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
            } else {
                c.answer("{}", "503 Away");
            }
        }
    });
    connect(server.url());
    EXPECT_EQ(call(set_scale({ScaleTarget::Kind::kDeployment, "n", "d"}, 2))->status, 503);
    EXPECT_EQ(asked, 2);
}

TEST_F(Clients, NobodyThereIsAnError) {
    const net::RefusingPort port;
    connect(port.url());
    const auto answer = call(kAsk);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::kUnavailable);
}

/// Objects as a watcher tells them, for the test's thread.
class Names final : public ObjectSink {
  public:
    void on_put(std::string_view key, codec::JsonView) override { names.insert(std::string(key)); }
    void on_gone(std::string_view key) override { names.erase(std::string(key)); }
    void on_listed() override {}
    std::set<std::string> names;
};

TEST_F(Clients, AWatchFollowsAServerThatCutsAndGoes) {
    const auto item = [](int i) {
        return R"({"metadata":{"name":"o)" + std::to_string(i) + R"(","namespace":"n",)" +
               R"("resourceVersion":")" + std::to_string(i) + R"("}})";
    };
    std::atomic<int> watches = 0;
    ScriptedServer server([&](ScriptedConnection& c) {
        while (true) {
            const std::string request = c.read_request();
            if (request.empty()) return;
            if (!request.contains("watch=1")) {
                c.answer(R"({"metadata":{"resourceVersion":"1"},"items":[)" + item(1) + "]}");
                continue;
            }
            const int n = ++watches;
            c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            const std::string line = R"({"type":"ADDED","object":)" + item(1 + n) + "}\n";
            // Each byte a chunk of its own.
            for (const char byte : line) {
                if (!c.send("1\r\n" + std::string(1, byte) + "\r\n")) return;
            }
            if (n == 1) return;  // within an answer
            c.await_end();
            return;
        }
    });
    connect(server.url());
    Names names;
    std::promise<void> done;
    bool told = false;
    std::shared_ptr<Watcher> watcher;
    on_loop(loop_, [&] {
        ReflectorOptions options;
        options.collection = "/things";
        options.backoff_min = 5ms;
        watcher = make_watcher(client_, options, names, [&] {
            if (names.names.size() == 3 && !std::exchange(told, true)) done.set_value();
        });
        watcher->start();
    });
    EXPECT_EQ(done.get_future().wait_for(net::kPatience), std::future_status::ready);
    on_loop(loop_, [&] {
        EXPECT_THAT(names.names, ElementsAre("n/o1", "n/o2", "n/o3"));
        EXPECT_EQ(watcher->reflector().counts().lists, 1U);
        watcher->stop();
        watcher.reset();
    });
}

TEST_F(Clients, AHalfOpenWatchIsBegunAgainWhereItStood) {
    std::atomic<int> watches = 0;
    std::string second;
    ScriptedServer server([&](ScriptedConnection& c) {
        while (true) {
            const std::string request = c.read_request();
            if (request.empty()) return;
            if (!request.contains("watch=1")) {
                c.answer(R"({"metadata":{"resourceVersion":"1"},"items":[]})");
                continue;
            }
            c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            const std::string line =
                ++watches == 1
                    ? R"({"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}})"
                    : R"({"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"10"}}})";
            if (watches == 2) second = request;
            c.send(fmt::format("{:x}\r\n{}\n\r\n", line.size() + 1, line));
            c.await_end();  // and nothing ever again
            return;
        }
    });
    connect(server.url());
    Names names;
    std::promise<void> done;
    bool told = false;
    std::shared_ptr<Watcher> watcher;
    on_loop(loop_, [&] {
        ReflectorOptions options;
        options.collection = "/things";
        options.watch_silence = 100ms;
        watcher = make_watcher(client_, options, names, [&] {
            if (!names.names.empty() && !std::exchange(told, true)) done.set_value();
        });
        watcher->start();
    });
    EXPECT_EQ(done.get_future().wait_for(net::kPatience), std::future_status::ready);
    on_loop(loop_, [&] {
        EXPECT_EQ(watcher->reflector().counts().lists, 1U);
        EXPECT_EQ(watcher->reflector().trouble(), "");
        EXPECT_THAT(second, HasSubstr("resourceVersion=9"));
        watcher->stop();
        watcher.reset();
    });
}

TEST_F(Clients, OneOfTwoLeads) {
    // A Lease kept by the script: the second election's reads find the first's.
    std::mutex mutex;
    std::string held;
    int version = 0;
    ScriptedServer server([&](ScriptedConnection& c) {
        while (true) {
            const std::string request = c.read_request();
            if (request.empty()) return;
            const std::scoped_lock lock(mutex);
            if (request.starts_with("GET") && held.empty()) {
                c.answer("{}", "404 Not Found");
                continue;
            }
            if (!request.starts_with("GET")) {
                EXPECT_THAT(request, HasSubstr("Content-Type: application/json\r\n"));
                std::string body = request.substr(request.find("\r\n\r\n") + 4);
                const std::string mine = fmt::format(R"("resourceVersion":"{}")", version);
                if (!held.empty() && !body.contains(mine)) {
                    c.answer("{}", "409 Conflict");
                    continue;
                }
                const std::string next = fmt::format(R"("resourceVersion":"{}")", ++version);
                if (const auto at = body.find(mine); at != std::string::npos) {
                    body.replace(at, mine.size(), next);
                } else {
                    body.insert(body.find("\"name\""), next + ",");
                }
                held = body;
            }
            c.answer(held);
        }
    });
    connect(server.url());
    std::promise<void> first;
    std::promise<void> second;
    std::vector<std::shared_ptr<Elector>> both;
    std::vector<std::string> told;
    on_loop(loop_, [&] {
        for (const std::string self : {"a", "b"}) {
            ElectionOptions options;
            options.in_namespace = "n";
            options.lease = "l";
            options.self = self;
            options.retry_every = 20ms;
            both.push_back(make_elector(client_, options, [&, self](bool leading) {
                told.push_back(self + (leading ? " leads" : " does not"));
                (told.size() == 1 ? first : second).set_value();
            }));
        }
        both[0]->start();
    });
    ASSERT_EQ(first.get_future().wait_for(net::kPatience), std::future_status::ready);
    on_loop(loop_, [&] { both[1]->start(); });
    std::promise<void> gone;
    on_loop(loop_, [&] {
        EXPECT_FALSE(both[1]->leading());
        both[0]->stop([&] { gone.set_value(); });
    });
    ASSERT_EQ(gone.get_future().wait_for(net::kPatience), std::future_status::ready);
    ASSERT_EQ(second.get_future().wait_for(net::kPatience), std::future_status::ready);
    std::promise<void> over;
    on_loop(loop_, [&] {
        EXPECT_THAT(told, ElementsAre("a leads", "b leads"));
        EXPECT_EQ(both[1]->holder(), "b");
        both[1]->stop([&] { over.set_value(); });
    });
    ASSERT_EQ(over.get_future().wait_for(net::kPatience), std::future_status::ready);
    on_loop(loop_, [&] { both.clear(); });
}

class TlsClients : public Clients {
  protected:
    /// A server that answers each request with "{}", over TLS.
    class Hello final : public net::StreamHandler {
      public:
        explicit Hello(std::shared_ptr<net::StreamSocket> socket) : socket_(std::move(socket)) {}
        void on_open() override {}
        void on_bytes(std::string_view) override {
            socket_->out() += "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            socket_->flush_later();
        }
        void on_drained() override {}
        void on_closed(const Error&) override { socket_.reset(); }

      private:
        std::shared_ptr<net::StreamSocket> socket_;
    };
};

TEST_F(TlsClients, AServerOfAnotherAuthorityIsNotSpokenToUntilTheFileHasItsAuthority) {
    const net::Authority right(folder_, "right");
    const net::Authority wrong(folder_, "wrong");
    net::Authority::Subject subject;
    subject.name = "";
    subject.address = "127.0.0.1";
    auto files = right.issue("server", subject);
    files.authorities.clear();
    runtime::LoopPool loops(1, "server");
    loops.start();
    net::ListenOptions listen;
    listen.stream.tls = net::TlsContext::server(files).value();
    auto listener =
        net::listen_stream(loops, net::parse_socket_address("127.0.0.1:0").value(), listen,
                           [](auto socket) { return std::make_shared<Hello>(std::move(socket)); })
            .value();
    const std::string ca = folder_.file("ca.pem");
    std::filesystem::copy_file(wrong.file(), ca);
    connect("https://127.0.0.1:" + std::to_string(listener->address().port), ca);
    const auto refused = call(kAsk);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("certificate"));
    std::filesystem::copy_file(right.file(), ca, std::filesystem::copy_options::overwrite_existing);
    EXPECT_FALSE(call(kAsk)) << "this is when it is seen that the file is another one";
    const auto answer = call(kAsk);
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->status, 200);
    on_loop(loop_, [&] { client_->stop(); });
    listener->stop();
    loops.stop();
}

}  // namespace
}  // namespace stator::kube
