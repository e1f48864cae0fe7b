#include "stator/requests/worker_session_impl.h"

#include <algorithm>
#include <cstring>

#include "stator/requests/handshake.h"

namespace stator::requests {
namespace {

/// Prompts of up to so many bytes come without having been asked for.
constexpr std::size_t kInlineBytes = 64 * 1024;

}  // namespace

void WorkerSession::Impl::drop_upload(Stream& s) {
    if (!s.upload) return;
    if (s.upload->granted) uploading_bytes -= std::size_t{4} * s.upload->head.prompt_tokens;
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
            const std::size_t bytes = std::size_t{4} * s->upload->head.prompt_tokens;
            if (uploading_bytes > 0 && uploading_bytes + bytes > options.max_uploading_bytes)
                return;
            uploading_bytes += bytes;
            s->upload->granted = true;
            // Growing on the way would copy megabytes at once, while other streams wait.
            s->upload->head.request.prompt.reserve(s->upload->head.prompt_tokens);
            if (std::string* out = control_out(); out != nullptr) {
                put_credit(*out, stream, "data", s->upload->head.prompt_tokens);
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
        const Deadline deadline = s.upload->head.request.deadline;
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

/// The prompt is whole: the owner decides.
void WorkerSession::Impl::deliver(std::uint32_t stream) {
    Stream* s = streams.find(stream);
    OpenHead head = std::move(s->upload->head);
    drop_upload(*s);
    take_constraint_from_behind(head);
    const auto ok =
        events.on_open(StreamId(stream), head.rank, head.booking, std::move(head.request));
    if (!ok) refuse(stream, ok.error());
    grant();
}

void WorkerSession::Impl::append_prompt(std::uint32_t stream, Stream& s, std::string_view bytes,
                                        bool more) {
    OpenHead& head = s.upload->head;
    auto& prompt = head.request.prompt;
    const std::size_t n = bytes.size() / 4;
    const std::size_t have = prompt.size() + n;
    if (bytes.size() % 4 != 0 || have > head.prompt_tokens ||
        (more ? have == head.prompt_tokens : have < head.prompt_tokens)) {
        return refuse(stream, error(ErrorCode::kInvalidArgument,
                                    "the prompt has {} tokens so far and {} bytes more, {} said",
                                    prompt.size(), bytes.size(), head.prompt_tokens)
                                  .value());
    }
    if (n > 0) {
        const std::size_t at = prompt.size();
        prompt.resize(have);
        std::memcpy(prompt.data() + at, bytes.data(), bytes.size());
    }
    if (!more) deliver(stream);
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
    if (streams.size() >= options.max_streams) {
        refuse(f.stream,
               error(ErrorCode::kOverloaded, "{} requests are open on this link", streams.size())
                   .value());
        return {};
    }
    if (head->prompt_tokens > options.max_prompt_tokens) {
        refuse(f.stream, error(ErrorCode::kTooLarge, "a prompt of {} tokens, at most {}",
                               head->prompt_tokens, options.max_prompt_tokens)
                             .value());
        return {};
    }
    if (inlined && more && uploading_bytes + bytes > options.max_uploading_bytes) {
        refuse(f.stream, error(ErrorCode::kOverloaded, "{} bytes of prompts are in the coming",
                               uploading_bytes)
                             .value());
        return {};
    }
    Stream& s = streams.insert(f.stream);
    s.credit = head->credit;
    s.logprobs = head->request.top_logprobs >= 0;
    s.upload = std::make_unique<Upload>();
    s.upload->head = std::move(*head);
    next_expiry = std::min(next_expiry, s.upload->head.request.deadline);
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
