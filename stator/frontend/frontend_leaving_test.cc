// Clients that leave while their long prompts wait for the pool or are being tokenised.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "stator/frontend/loopback_door.h"

namespace stator::frontend {
namespace {

constexpr std::size_t kLong = 100'000;  // over what a loop reads itself

/// Counts the long texts it is given, and lets none through before it is opened.
class GatedTokenizer final : public text::Tokenizer {
  public:
    [[nodiscard]] Result<void> encode(std::string_view text, text::SpecialTokens special, bool bos,
                                      std::vector<tokens::TokenId>& out) const override {
        if (text.size() >= kLong) {
            std::unique_lock lock(mutex_);
            ++entered_;
            changed_.notify_all();
            changed_.wait(lock, [this] { return open_; });
        }
        return bytes_.encode(text, special, bos, out);
    }
    [[nodiscard]] std::uint32_t vocab_size() const override { return bytes_.vocab_size(); }
    [[nodiscard]] std::string_view bytes(tokens::TokenId t) const override {
        return bytes_.bytes(t);
    }
    [[nodiscard]] std::string_view spelling(tokens::TokenId t) const override {
        return bytes_.spelling(t);
    }
    [[nodiscard]] bool is_control(tokens::TokenId t) const override { return bytes_.is_control(t); }
    [[nodiscard]] bool is_end(tokens::TokenId t) const override { return bytes_.is_end(t); }
    [[nodiscard]] std::span<const std::string> special_texts() const override {
        return bytes_.special_texts();
    }

    void wait_until_entered() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return entered_ > 0; });
    }
    void open() {
        const std::scoped_lock lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }
    [[nodiscard]] int entered() const {
        const std::scoped_lock lock(mutex_);
        return entered_;
    }

  private:
    text::ByteTokenizer bytes_;
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    mutable int entered_ = 0;
    bool open_ = false;
};

/// Waits (up to 20 s) until so many requests are in work.
bool in_work(Door& door, int requests) {
    const std::string line = "\nstator_http_inflight_requests " + std::to_string(requests) + "\n";
    const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
    while (!end.reached(Clock::real().now())) {
        if (door.metrics().find(line) != std::string::npos) return true;
    }
    return false;
}

TEST(FrontendLeaving, WhatNobodyWaitsForIsNotTokenised) {
    const auto tokenizer = std::make_shared<GatedTokenizer>();
    Door door(DoorModel{.engine = engine::make_echo_engine({}), .tokenizer = tokenizer},
              {.prepare_threads = 1});
    const std::string body = chat_body(std::string(kLong, 'y'), R"("max_tokens":3)");
    RawClient first(door.port());
    first.post(kChat, body);
    tokenizer->wait_until_entered();
    RawClient second(door.port());
    second.post(kChat, body);
    EXPECT_TRUE(in_work(door, 2));
    second.leave();
    EXPECT_TRUE(in_work(door, 1));
    first.leave();
    EXPECT_TRUE(in_work(door, 0));
    tokenizer->open();
    // The pool's one thread takes them in turn: when this one is answered the others are done with.
    EXPECT_EQ(door.chat(std::string(kLong, 'y'), R"("max_tokens":3)").status, 200);
    EXPECT_EQ(tokenizer->entered(), 2);  // the first, which was at it, and the last
    EXPECT_NE(door.metrics().find("\nstator_prompt_tokens_total{model=\"org/echo\"} 100000\n"),
              std::string::npos);
    EXPECT_TRUE(door.idle());
}

}  // namespace
}  // namespace stator::frontend
