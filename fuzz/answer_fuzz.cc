// A hostile server against `stator bench`: the client's half of HTTP, and the stream of events in
// it. The first byte says how the bytes are cut; whatever the cut, the same must come out.
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/check.h"
#include "stator/codec/json.h"
#include "stator/loadgen/answer.h"
#include "stator/net/http_response.h"

namespace {

using namespace stator;
using State = net::HttpResponseParser::State;

constexpr std::size_t kMaxHead = 1024;

/// All that comes out, as text.
std::string outcome(std::string_view bytes, std::size_t cut) {
    net::HttpResponseParser parser(kMaxHead);
    codec::JsonDocument json;
    loadgen::StreamedAnswer answer(json, true);
    std::string out;
    parser.begin(false);
    while (!bytes.empty() && parser.state() != State::kDone && parser.state() != State::kBad) {
        std::string_view piece = bytes.substr(0, cut);
        bytes.remove_prefix(piece.size());
        while (!piece.empty() && parser.state() != State::kDone && parser.state() != State::kBad) {
            const std::size_t before = piece.size();
            const State was = parser.state();
            std::string_view body;
            parser.next(piece, body);
            STATOR_CHECK(piece.size() < before || parser.state() != was, "it goes on");
            answer.feed(body, {});
        }
    }
    if (parser.state() != State::kDone && parser.state() != State::kBad) parser.end();
    if (parser.state() == State::kBad) {
        STATOR_CHECK(!parser.reason().empty(), "a refusal says why");
    }
    answer.end();
    if (const auto& fault = answer.fault()) {
        STATOR_CHECK(!fault->reason.empty() && !fault->message.empty(), "a fault says why");
        return fmt::format("{} {} {} {}", static_cast<int>(parser.state()), parser.head().status,
                           static_cast<int>(fault->outcome), fault->reason);
    }
    const auto tokens = answer.output_tokens();
    if (answer.pieces().empty()) {
        STATOR_CHECK(tokens == 0 || answer.text().empty(), "text comes in pieces");
    } else if (tokens < 100'000) {
        const auto gaps = loadgen::token_gaps(answer.pieces(), tokens);
        const std::size_t pieces = answer.pieces().size();
        const std::size_t wanted = pieces < 2 ? 0 : std::max<std::size_t>(tokens, pieces) - 1;
        STATOR_CHECK(gaps.size() == wanted, "a gap between two neighbours");
    }
    return fmt::format("{} {} {} {} {}", static_cast<int>(parser.state()), parser.head().status,
                       answer.pieces().size(), tokens, answer.text());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    const std::string whole = outcome(bytes, std::string_view::npos);
    const std::string cut = outcome(bytes, 1 + data[0] % 64U);
    STATOR_CHECK(whole == cut, "the cut changes the outcome");
    return 0;
}
