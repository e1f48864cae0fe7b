// test/media/hostile.json, case by case.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "stator/base/log.h"
#include "stator/codec/json.h"
#include "stator/media/data_url.h"
#include "stator/media/decoder.h"
#include "stator/media/fetcher.h"
#include "stator/media/hostile_files_fixture.h"
#include "stator/net/scripted_server.h"

namespace stator::media {
namespace {

const std::atomic<bool> kNever{false};

class HostileList {
  public:
    HostileList() {
        set_log(LogLevel::kOff, LogFormat::kText);
        std::ifstream file(STATOR_HOSTILE_MEDIA);
        std::stringstream text;
        text << file.rdbuf();
        auto root = document_.parse(text.str());
        EXPECT_TRUE(root) << "no " STATOR_HOSTILE_MEDIA;
        if (root) root_ = *root;
    }
    void each(std::string_view list, const std::function<void(codec::JsonView)>& f) const {
        EXPECT_GT(root_.find(list).size(), 10U);
        root_.find(list).each_element([&](std::size_t, codec::JsonView c) {
            f(c);
            return true;
        });
    }

  private:
    codec::JsonDocument document_;
    codec::JsonView root_;
};

std::string str(codec::JsonView v, std::string_view key) {
    return std::string(v.find(key).as_string().value_or(""));
}
bool flag(codec::JsonView v, std::string_view key) { return v.find(key).as_bool().value_or(false); }

template <typename T>
void expect_outcome(codec::JsonView c, const Result<T>& result) {
    const std::string got = result ? "ok" : std::string(to_string(result.error().code));
    EXPECT_EQ(got, str(c, "expect"))
        << str(c, "name") << ": " << (result ? "" : result.error().message);
}

/// Answers question after question with the lists it was given; the last one again and again.
class ScriptedResolver final : public Resolver {
  public:
    void say(const std::string& host, std::vector<std::vector<std::string>> answers) {
        answers_[host] = std::move(answers);
    }
    Result<std::vector<IpAddress>> resolve(const std::string& host,
                                           std::chrono::nanoseconds) override {
        const std::size_t question = asked_[host]++;
        const auto at = answers_.find(host);
        if (at == answers_.end()) return error(ErrorCode::kUnavailable, "{} is unknown", host);
        std::vector<IpAddress> out;
        for (const auto& text : at->second[std::min(question, at->second.size() - 1)]) {
            out.push_back(parse_ip_address(text).value());
        }
        return out;
    }
    [[nodiscard]] std::size_t asked(const std::string& host) { return asked_[host]; }

  private:
    std::map<std::string, std::vector<std::vector<std::string>>> answers_;
    std::map<std::string, std::size_t> asked_;
};

std::shared_ptr<ScriptedResolver> resolver_of(codec::JsonView c) {
    auto out = std::make_shared<ScriptedResolver>();
    c.find("dns").each_member([&](std::string_view host, codec::JsonView lists) {
        std::vector<std::vector<std::string>> answers;
        lists.each_element([&](std::size_t, codec::JsonView list) {
            auto& answer = answers.emplace_back();
            list.each_element([&](std::size_t, codec::JsonView a) {
                answer.emplace_back(a.as_string().value());
                return true;
            });
            return true;
        });
        out->say(std::string(host), std::move(answers));
        return true;
    });
    return out;
}

FetchOptions options_of(codec::JsonView c) {
    FetchOptions out;
    out.allow_http = flag(c, "http");
    c.find("hosts").each_element([&](std::size_t, codec::JsonView h) {
        out.hosts.emplace_back(h.as_string().value());
        return true;
    });
    static const auto tls = net::TlsContext::client({});
    EXPECT_TRUE(tls);
    if (tls) out.tls = *tls;
    return out;
}

TEST(Hostile, Urls) {
    HostileList().each("urls", [](codec::JsonView c) {
        const Fetcher fetcher(options_of(c), resolver_of(c), Clock::real());
        expect_outcome(c, fetcher.check(str(c, "url")));
    });
}

TEST(Hostile, Base64) {
    HostileList().each("base64", [](codec::JsonView c) {
        const auto bytes = read_data_url(str(c, "url"), 64);
        expect_outcome(c, bytes);
        if (bytes) {
            EXPECT_EQ(*bytes, "hello");
        }
    });
}

TEST(Hostile, Files) {
    DecoderOptions options;
    options.image_helper = STATOR_IMAGE_HELPER;
    Decoder decoder(options, Clock::real());
    HostileList().each("files", [&](codec::JsonView c) {
        const std::string file = hostile_file(str(c, "make"));
        ASSERT_FALSE(file.empty()) << str(c, "make");
        expect_outcome(c, decoder.decode(protocol::MediaContent::Kind::kImage, file,
                                         Deadline::never(), kNever));
    });
    EXPECT_EQ(decoder.crashes(), 0U);
}

TEST(Hostile, Servers) {
    HostileList().each("servers", [](codec::JsonView c) {
        const std::string first = str(c, "send");
        const std::string then = str(c, "then");
        const auto repeat = c.find("repeat").as_uint().value_or(0);
        net::ScriptedServer server([&](net::ScriptedConnection& connection) {
            connection.read_request();
            const bool later = !then.empty() && connection.number() > 0;
            std::string bytes = later ? then : first;
            for (std::uint64_t i = 0; i < repeat; ++i) bytes += "0123456789abcdef";
            if (!flag(c, "drip")) {
                connection.send(bytes);
                if (flag(c, "hold")) connection.await_end();
                return;
            }
            for (const char byte : bytes) {
                if (!connection.send({&byte, 1})) return;
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            }
            connection.await_end();
        });
        FetchOptions options;
        options.allow_http = true;
        options.allow_private = !flag(c, "public");
        options.allowed_addresses = {*parse_ip_address("127.0.0.1")};
        options.max_bytes = 64;
        options.max_redirects =
            static_cast<std::uint32_t>(c.find("redirects").as_uint().value_or(0));
        options.total_timeout = std::chrono::milliseconds(150);
        auto resolver = std::make_shared<ScriptedResolver>();
        resolver->say("inside.example.org", {{"192.168.1.1"}});
        const Fetcher fetcher(options, resolver, Clock::real());
        const auto body = fetcher.fetch(server.url() + "/a.png", Deadline::never(), kNever);
        expect_outcome(c, body);
        if (body) {
            EXPECT_EQ(*body, "hello") << str(c, "name");
        }
    });
}

}  // namespace
}  // namespace stator::media
