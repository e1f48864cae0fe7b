#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace stator::workload {

/// A piece of a prompt. Its tokens are a pure function of (content, position within the segment):
/// two prompts that begin with equal segments begin with equal tokens, and content ids that differ
/// differ from their first token on, but for chance.
struct Segment {
    std::uint64_t content = 0;
    std::uint32_t tokens = 0;
    /// Set: the output of the request with this index in place of made-up content, as many tokens
    /// as it really gave (`tokens` is what was asked of it).
    std::optional<std::uint64_t> output_of;
    bool operator==(const Segment&) const = default;
};

struct ImageSpec {
    std::uint64_t content = 0;  ///< equal contents are equal pictures
    std::uint32_t width = 0;    ///< pixels
    std::uint32_t height = 0;
    bool operator==(const ImageSpec&) const = default;
};

/// One request of a workload, before anything is sent anywhere.
struct RequestSpec {
    std::uint64_t index = 0;  ///< 0, 1, … in the order a workload gives them
    /// When it should start: since the run's begin; or, with `after`, since the end of that request
    /// and of every other one whose output its prompt holds.
    std::chrono::nanoseconds start{0};
    std::optional<std::uint64_t> after;  ///< the turn before, of the same session
    std::uint64_t session = 0;           ///< requests of one chat or agent share it
    std::vector<Segment> prompt;         ///< empty where `text` or `messages` is set
    std::string text;                    ///< a prompt from a file, sent as it is
    std::string messages;                ///< a chat from a file: a JSON array, sent as it is
    std::vector<ImageSpec> images;
    std::uint32_t output_tokens = 0;  ///< at least 1; to be generated whatever the model would do
    std::string adapter;              ///< LoRA adapter; empty = the model itself
    std::int32_t priority = 0;
    std::string tenant;
    bool operator==(const RequestSpec&) const = default;

    [[nodiscard]] std::uint64_t prompt_tokens() const {
        std::uint64_t n = 0;
        for (const Segment& s : prompt) n += s.tokens;
        return n;
    }
};

/// Gives the requests of a run one after another, the same ones for the same options and seed.
/// Requests without `after` come in the order of their start; a request with `after` comes after
/// that one. Holds no more than it must, so that a workload may be far larger than memory. Not
/// thread-safe.
class Workload {
  public:
    virtual ~Workload() = default;
    /// None: the workload is at its end.
    [[nodiscard]] virtual std::optional<RequestSpec> next() = 0;
};

}  // namespace stator::workload
