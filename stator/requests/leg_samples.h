#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "stator/protocol/generate.h"

namespace stator::requests {

/// For tests: handoffs and requests that are legs, sound and otherwise as the random numbers want.

inline bool same(const protocol::Handoff& a, const protocol::Handoff& b) {
    return a.kind == b.kind && a.id == b.id && a.bytes == b.bytes && a.layout == b.layout &&
           a.content == b.content && a.tokens == b.tokens && a.parts == b.parts &&
           a.pieces == b.pieces && a.shape == b.shape && a.places == b.places &&
           a.object == b.object && a.early == b.early;
}

inline bool same(const std::shared_ptr<const protocol::Handoff>& a,
                 const std::shared_ptr<const protocol::Handoff>& b) {
    return a == nullptr || b == nullptr ? a == b : same(*a, *b);
}

class LegSamples {
  public:
    explicit LegSamples(std::uint64_t seed) : random_(seed) {}

    std::size_t number(std::size_t from, std::size_t to) {
        return from + random_() % (to - from + 1);
    }
    std::string bytes(std::size_t n) {
        std::string out(n, '\0');
        for (char& c : out) c = static_cast<char>(random_());
        return out;
    }
    template <std::size_t N>
    void fill(std::array<std::uint8_t, N>& to) {
        for (auto& b : to) b = static_cast<std::uint8_t>(random_());
    }

    std::shared_ptr<const protocol::Handoff> kv(std::uint32_t tokens, std::size_t parts) {
        auto h = common();
        h->kind = protocol::Handoff::Kind::kKv;
        h->layout = "llama:f16:24";
        h->tokens = tokens;
        std::uint32_t first = 0;
        for (std::size_t i = 0; i < parts && first < tokens; ++i) {
            const std::uint32_t n = i + 1 == parts
                                        ? tokens - first
                                        : static_cast<std::uint32_t>(
                                              number(1, std::max<std::size_t>(1, tokens / parts)));
            const std::uint64_t size = number(0, 100'000);
            h->parts.push_back({first, n, h->bytes, size});
            h->bytes += size;
            first += n;
        }
        if (!h->parts.empty()) h->parts.back().tokens += tokens - first;
        return h;
    }
    /// KV that engines move among themselves.
    std::shared_ptr<const protocol::Handoff> object(std::uint32_t tokens, std::size_t size) {
        auto h = common();
        h->kind = protocol::Handoff::Kind::kKv;
        h->layout = "vllm/nixl";
        h->tokens = tokens;
        h->places.clear();
        h->object = bytes(std::max<std::size_t>(1, size));
        h->early = number(0, 1) == 1;
        return h;
    }
    /// What it becomes in a prompt has `tokens` tokens; `tokens` is at least 2.
    std::shared_ptr<const protocol::Handoff> embeddings(const protocol::Digest& digest,
                                                        std::uint32_t tokens) {
        auto h = common();
        h->kind = protocol::Handoff::Kind::kEmbeddings;
        h->layout = "f32:1024:sha256-sample:abc";
        h->content = digest;
        h->pieces.push_back({.text = {7}, .rows = 0});
        h->pieces.push_back({.text = {}, .rows = tokens - 1});
        h->tokens = tokens - 1;
        h->bytes = std::uint64_t{h->tokens} * 4096;
        return h;
    }
    /// Embeddings that an engine keeps.
    std::shared_ptr<const protocol::Handoff> engines_own(const protocol::Digest& digest,
                                                         std::uint32_t tokens) {
        auto h = std::make_shared<protocol::Handoff>();
        fill(h->id);
        h->kind = protocol::Handoff::Kind::kEmbeddings;
        h->layout = "vllm/media";
        h->content = digest;
        h->tokens = tokens;
        h->pieces.push_back({.text = {}, .rows = tokens});
        h->object = bytes(number(1, 500));
        return h;
    }
    /// `leg`'s, with engines' own embeddings and the contents beside them.
    std::shared_ptr<protocol::GenerateRequest> leg_with_contents(protocol::Leg what,
                                                                 std::size_t items) {
        auto q = leg(what, items, 3);
        for (protocol::MediaItem& item : q->media) {
            item.embeddings = engines_own(item.digest, item.tokens);
            item.content = encode(static_cast<std::uint32_t>(number(1, 40)),
                                  static_cast<std::uint32_t>(number(1, 40)),
                                  static_cast<std::uint32_t>(number(1, 3)))
                               ->media.front()
                               .content;
        }
        return q;
    }
    std::shared_ptr<protocol::GenerateRequest> encode(std::uint32_t width, std::uint32_t height,
                                                      std::uint32_t frames = 1) {
        auto q = std::make_shared<protocol::GenerateRequest>();
        q->leg = protocol::Leg::kEncode;
        auto c = std::make_shared<protocol::MediaContent>();
        c->width = width;
        c->height = height;
        c->frames = frames;
        if (frames > 1) {
            c->kind = protocol::MediaContent::Kind::kVideo;
            for (std::uint32_t i = 0; i < frames; ++i) c->frame_ms.push_back(i * 40);
        }
        c->pixels = bytes(std::size_t{3} * width * height * frames);
        protocol::MediaItem item;
        fill(item.digest);
        item.content = std::move(c);
        q->media.push_back(std::move(item));
        return q;
    }
    /// A whole, prefill or decode leg with so many media items and parts.
    std::shared_ptr<protocol::GenerateRequest> leg(protocol::Leg what, std::size_t items,
                                                   std::size_t parts, std::size_t text = 5) {
        auto q = std::make_shared<protocol::GenerateRequest>();
        q->leg = what;
        for (std::size_t i = 0; i < items; ++i) {
            protocol::MediaItem item;
            fill(item.digest);
            item.position = static_cast<std::uint32_t>(q->prompt.size());
            item.tokens = static_cast<std::uint32_t>(number(2, 60));
            item.embeddings = embeddings(item.digest, item.tokens);
            q->prompt.insert(q->prompt.end(), item.tokens, 0x8000'0001);
            q->media.push_back(std::move(item));
        }
        for (std::size_t i = 0; i < text; ++i) {
            q->prompt.push_back(static_cast<protocol::TokenId>(i));
        }
        if (what == protocol::Leg::kDecode) {
            q->handoff = kv(static_cast<std::uint32_t>(q->prompt.size() - 1), parts);
        }
        return q;
    }

  private:
    std::shared_ptr<protocol::Handoff> common() {
        auto h = std::make_shared<protocol::Handoff>();
        fill(h->id);
        fill(h->content);
        h->shape = bytes(number(0, 40));
        h->places.push_back({"shm", bytes(number(0, 60))});
        if (number(0, 1) == 1) h->places.push_back({"tcp", "10.0.0.7:4000"});
        return h;
    }

    std::mt19937_64 random_;
};

}  // namespace stator::requests
