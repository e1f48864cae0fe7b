#include "stator/requests/worker_session_impl.h"

#include <algorithm>
#include <cstring>

#include "stator/requests/handshake.h"
#include "stator/requests/leg_fields.h"

namespace stator::requests {
namespace {

/// Prompts of up to so many bytes come without having been asked for.
constexpr std::size_t kInlineBytes = 64 * 1024;

}  // namespace

void WorkerSession::Impl::drop_upload(Stream& s) {
    if (!s.upload) return;
    if (s.upload->granted) uploading_bytes -= s.upload->bytes;
    s.upload.reset();
}

/// Without this a client that opens and cancels behind an upload that never ends would make the
/// queue grow for ever.
void WorkerSession::Impl::stop_waiting(std::uint32_t stream, const Stream& s) {
    if (s.upload && !s.upload->granted) std::erase(waiting, stream);
}

void WorkerSession::Impl::refuse(std::uint32_t stream, const Error& why) {
    if (Stream* s = streams.find(stream); s != nullptr) {
        stop_waiting(stream, *s);
        drop_upload(*s);
    }
    streams.erase(stream);
    if (std::string* out = control_out(); out != nullptr) put_error(*out, stream, why);
}

/// Lets as many waiting uploads begin as there is memory for.
void WorkerSession::Impl::grant() {
    while (!waiting.empty()) {
        const std::uint32_t stream = waiting.front();
        Stream* s = streams.find(stream);
        if (s != nullptr && s->upload) {
            const std::size_t bytes = s->upload->bytes;
            if (uploading_bytes > 0 && uploading_bytes + bytes > options.max_uploading_bytes)
                return;
            uploading_bytes += bytes;
            s->upload->granted = true;
            // Growing on the way would copy megabytes at once, while other streams wait.
            s->upload->body.reserve();
            if (std::string* out = control_out(); out != nullptr) {
                put_credit(*out, stream, "data", s->upload->body.head().prompt_tokens);
            }
        }
        waiting.pop_front();
    }
}

/// A request whose deadline passes while its prompt is on the way is over; whoever waits behind it
/// may go on.
void WorkerSession::Impl::expire(TimePoint now) {
    if (!next_expiry.reached(now)) return;
    next_expiry = Deadline::never();
    std::vector<std::uint32_t> over;
    streams.each([&](std::uint32_t stream, Stream& s) {
        if (!s.upload) return;
        const Deadline deadline = s.upload->deadline();
        if (deadline.reached(now)) {
            over.push_back(stream);
        } else {
            next_expiry = std::min(next_expiry, deadline);
        }
    });
    for (const std::uint32_t stream : over) {
        refuse(stream, error(ErrorCode::kDeadlineExceeded,
                             "the deadline passed before the prompt was there")
                           .value());
    }
    grant();
}

/// The prompt is whole, and what was behind it: the owner decides.
void WorkerSession::Impl::deliver(std::uint32_t stream) {
    Stream* s = streams.find(stream);
    auto head = s->upload->body.take();
    drop_upload(*s);
    Result<void> ok;
    if (!head) {
        ok = tl::unexpected(std::move(head.error()));
    } else {
        ok = events.on_open(StreamId(stream), head->rank, head->booking, std::move(head->request));
    }
    if (!ok) refuse(stream, ok.error());
    grant();
}

void WorkerSession::Impl::append_prompt(std::uint32_t stream, Stream& s, std::string_view bytes,
                                        bool more) {
    IncomingBody& body = s.upload->body;
    if (!body.add(bytes) || body.whole() == more) {
        return refuse(stream, error(ErrorCode::kInvalidArgument,
                                    "the prompt has {} tokens so far, of {} bytes more, {} said",
                                    body.words(), bytes.size(), body.head().prompt_tokens)
                                  .value());
    }
    if (!more) deliver(stream);
}

/// Whether there is room for this request.
Result<void> WorkerSession::Impl::take_in(const Frame& f, const OpenHead& head, bool inlined) {
    const std::uint64_t tokens = head.prompt_tokens - head.behind.words();
    if (streams.size() >= options.max_streams) {
        return error(ErrorCode::kOverloaded, "{} requests are open on this link", streams.size());
    }
    if (tokens > options.max_prompt_tokens) {
        return error(ErrorCode::kTooLarge, "a prompt of {} tokens, at most {}", tokens,
                     options.max_prompt_tokens);
    }
    if (head.behind.pixels > options.max_pixel_bytes) {
        auto refused = error(ErrorCode::kTooLarge, "{} bytes of pixels, at most {}",
                             head.behind.pixels, options.max_pixel_bytes);
        refused.value().param = "media";
        return refused;
    }
    const bool more = (f.flags & kFlagMore) != 0;
    const std::size_t bytes = std::size_t{4} * head.prompt_tokens;
    if (inlined && more && uploading_bytes + bytes > options.max_uploading_bytes) {
        return error(ErrorCode::kOverloaded, "{} bytes of prompts are in the coming",
                     uploading_bytes);
    }
    return {};
}

Result<void> WorkerSession::Impl::on_open(const Frame& f, TimePoint now) {
    if (f.stream <= last_stream) return violation(f, "a stream number that was used before");
    last_stream = f.stream;
    std::string_view rest;
    auto head = read_open(f.payload, now, rest);
    if (!head) {
        refuse(f.stream, head.error());
        return {};
    }
    booking = std::max(booking, head->booking);
    const std::size_t bytes = std::size_t{4} * head->prompt_tokens;
    const bool more = (f.flags & kFlagMore) != 0;
    const bool inlined = !more || bytes <= kInlineBytes;
    if (auto ok = take_in(f, *head, inlined); !ok) {
        refuse(f.stream, ok.error());
        return {};
    }
    Stream& s = streams.insert(f.stream);
    s.credit = head->credit;
    s.logprobs = head->request.top_logprobs >= 0;
    s.hands_off = hands_off(head->request.leg);
    s.upload = std::make_unique<Upload>(std::move(*head), now);
    next_expiry = std::min(next_expiry, s.upload->deadline());
    if (inlined) {
        uploading_bytes += bytes;
        s.upload->granted = true;
        append_prompt(f.stream, s, rest, more);
    } else {
        waiting.push_back(f.stream);
        grant();
    }
    return {};
}

Result<void> WorkerSession::Impl::on_data(const Frame& f) {
    if (f.stream == 0 || f.stream > last_stream) return violation(f, "data of no stream");
    Stream* s = streams.find(f.stream);
    if (s == nullptr) return {};  // cancelled or refused while it was on the way
    if (!s->upload || !s->upload->granted) return violation(f, "data that was not asked for");
    append_prompt(f.stream, *s, f.payload, (f.flags & kFlagMore) != 0);
    return {};
}

}  // namespace stator::requests
