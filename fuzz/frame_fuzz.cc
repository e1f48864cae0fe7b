// Any bytes through what cuts the request plane's frames and through the decoder of every payload.
// The first byte chooses. What is accepted must say the same when it is written and read again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/check.h"
#include "stator/requests/handshake.h"
#include "stator/requests/messages.h"
#include "stator/requests/step_codec.h"
#include "stator/requests/wire.h"

namespace {

using namespace stator;
using namespace stator::requests;

constexpr TimePoint kNow{1'000'000'000};

/// All frames written again one behind the other, and how it ended.
std::string outcome(std::string_view bytes, std::size_t cut, bool preface) {
    FrameReader reader(preface);
    std::string out;
    while (!bytes.empty()) {
        const std::string_view piece = bytes.substr(0, cut);
        bytes.remove_prefix(piece.size());
        const auto ok = reader.feed(piece, [&](const Frame& f) -> Result<void> {
            append_frame(out, f.type, f.flags, f.stream, f.payload);
            return {};
        });
        if (ok) continue;
        STATOR_CHECK(ok.error().code == ErrorCode::kDataLoss && !ok.error().message.empty(),
                     "a refusal blames the bytes and says why");
        return out + "refused: " + ok.error().message;
    }
    return out;
}

void frames(std::string_view bytes, bool preface) {
    const std::string whole = outcome(bytes, std::string_view::npos, preface);
    const std::size_t cut = bytes.empty() ? 1 : 1 + static_cast<unsigned char>(bytes.back()) % 64U;
    STATOR_CHECK(whole == outcome(bytes, cut, preface), "the cut changes the outcome");
    const std::string_view frames_of = bytes.substr(preface && bytes.starts_with(kPreface) ? 8 : 0);
    const std::size_t same = whole.find("refused: ");
    STATOR_CHECK(
        frames_of.starts_with(std::string_view(whole).substr(0, same)) || same != std::string::npos,
        "a frame written again is the frame that was read");
}

template <typename T>
bool refused(const Result<T>& read) {
    if (read) return false;
    STATOR_CHECK(!read.error().message.empty(), "a refusal says why");
    return true;
}

/// The text of a value: what is written for it. A second reading must give the same text.
template <typename Read, typename Append>
void payload(std::string_view bytes, Read read, Append append) {
    const auto first = read(bytes);
    if (refused(first)) return;
    std::string text;
    append(text, *first);
    const auto second = read(std::string_view(text));
    STATOR_CHECK(second.has_value(), "what we write can be read");
    std::string again;
    append(again, *second);
    STATOR_CHECK(text == again, "reading and writing lose nothing");
}

void step(std::string_view bytes) {
    // Short enough that what is written again goes into one frame.
    StepReader reader(bytes.substr(0, 3000));
    Share share;
    while (true) {
        const auto got = reader.next(share);
        if (refused(got) || !*got) return;
        StepWriter writer;
        std::string out;
        protocol::StepEvent event;
        event.prompt_tokens = share.prompt_tokens;
        event.cached_tokens = share.cached_tokens;
        event.finish = share.finish;
        event.error = share.error;
        writer.add(out, share.stream, share.position, true, event, share.tokens, share.top);
        writer.finish(out);
        StepReader back(std::string_view(out).substr(kFrameHeaderBytes));
        Share same;
        const auto once = back.next(same);
        STATOR_CHECK(once && *once, "what we write can be read");
        STATOR_CHECK(same.stream == share.stream && same.position == share.position &&
                         same.finish == share.finish && same.prompt_tokens == share.prompt_tokens &&
                         same.error.has_value() == share.error.has_value() &&
                         same.tokens.size() == share.tokens.size() &&
                         same.top.size() == share.top.size(),
                     "reading and writing lose nothing");
        for (std::size_t i = 0; i < same.tokens.size(); ++i) {
            STATOR_CHECK(same.tokens[i].token == share.tokens[i].token, "tokens stay the same");
        }
    }
}

void open(std::string_view bytes) {
    std::string_view rest;
    payload(
        bytes, [&](std::string_view b) { return read_open(b, kNow, rest); },
        [](std::string& to, const OpenHead& head) { append_open(to, head, kNow); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 11) {
        case 0:
            frames(bytes, false);
            break;
        case 1:
            frames(bytes, true);
            break;
        case 2:
            payload(bytes, read_hello, append_hello);
            break;
        case 3:
            payload(bytes, read_info, append_info);
            break;
        case 4:
            open(bytes);
            break;
        case 5:
            step(bytes);
            break;
        case 6:
            payload(bytes, read_load, append_load);
            break;
        case 7:
            payload(bytes, read_go_away, append_go_away);
            break;
        case 8:
            payload(bytes, read_fetch, append_fetch);
            break;
        case 9:
            payload(bytes, read_error, append_error);
            static_cast<void>(refused(read_credit(bytes, "n")));
            break;
        case 10:
            payload(
                bytes, [](std::string_view b) { return read_handoff(b, kNow); },
                [](std::string& to, const protocol::Handoff& h) { append_handoff(to, h, kNow); });
            break;
    }
    return 0;
}
