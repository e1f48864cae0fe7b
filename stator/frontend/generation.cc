#include "stator/frontend/generation.h"

#include <algorithm>
#include <span>
#include <utility>

#include "stator/base/check.h"
#include "stator/engine/mailbox_sink.h"
#include "stator/frontend/error_mapping.h"
#include "stator/frontend/error_response.h"

namespace stator::frontend {
namespace {

using protocol::FinishReason;
using protocol::StepBatch;
using protocol::StepEvent;

std::string bracketed(const std::string& numbers) { return "[" + numbers + "]"; }

}  // namespace

GenerationHub::GenerationHub(runtime::Loop& loop, const Clock& clock,
                             std::atomic<std::uint64_t>& next_id, IdSource& ids,
                             std::weak_ptr<void> owner)
    : clock_(clock), next_id_(next_id), ids_(ids) {
    mailbox_ = std::make_shared<runtime::Mailbox<StepBatch>>(
        loop, [this, owner = std::move(owner)](std::vector<StepBatch>&& batches) {
            if (const auto alive = owner.lock()) receive(std::move(batches));
        });
    sink_ = std::make_shared<engine::MailboxSink>(mailbox_);
}

GenerationHub::~GenerationHub() { mailbox_->close(); }

protocol::RequestId GenerationHub::add(std::shared_ptr<StepReceiver> receiver,
                                       std::uint32_t index) {
    const std::uint64_t id = next_id_.fetch_add(1, std::memory_order_relaxed);
    targets_.emplace(id, Target{std::move(receiver), index});
    return protocol::RequestId(id);
}

void GenerationHub::receive(std::vector<StepBatch>&& batches) {
    const TimePoint now = clock_.now();
    for (const StepBatch& batch : batches) {
        for (const StepEvent& event : batch.events) {
            const auto target = targets_.find(event.id.value);
            if (target == targets_.end()) continue;  // one that has ended here already
            const std::shared_ptr<StepReceiver> receiver = target->second.receiver;
            receiver->on_event(target->second.index, event, batch, now);
        }
    }
}

Generation::Choice::Choice(std::uint32_t index_, std::uint32_t prompt_,
                           const PreparedRequest& request)
    : index(index_),
      prompt(prompt_),
      detokenizer(*request.entry->model.tokenizer, request.fields.stop,
                  request.output ? text::ControlTokens::kSpelled : text::ControlTokens::kHidden),
      text(request.fields.stream ? std::string() : request.echo) {
    if (request.fields.top_logprobs >= 0) {
        logprobs.emplace(request.api, *request.entry->model.tokenizer, request.fields.top_logprobs);
    }
}

Generation::Generation(GenerationHub& hub, std::shared_ptr<net::HttpExchange> exchange,
                       std::shared_ptr<RequestRecord> record, PreparedRequest request,
                       AnswerHead head, Deadline deadline)
    : hub_(hub),
      exchange_(std::move(exchange)),
      record_(std::move(record)),
      request_(std::move(request)),
      head_(std::move(head)),
      deadline_(deadline) {
    if (request_.fields.stream) chunks_.emplace(request_.api, head_, request_.fields.include_usage);
    choices_.reserve(request_.prompts.size() * request_.fields.n);
    for (std::uint32_t p = 0; p < request_.prompts.size(); ++p) {
        prompt_tokens_ += request_.prompts[p].tokens.size();
        if (request_.fields.return_token_ids) {
            prompt_ids_json_.push_back(token_ids_json(request_.prompts[p].tokens));
        }
        for (std::uint32_t i = 0; i < request_.fields.n; ++i) {
            choices_.emplace_back(static_cast<std::uint32_t>(choices_.size()), p, request_);
        }
    }
    open_choices_ = choices_.size();
    record_->prompt_tokens = prompt_tokens_;
}

protocol::GenerateRequest Generation::engine_request(Choice& choice, bool last) {
    const GenerationFields& fields = request_.fields;
    PreparedPrompt& prompt = request_.prompts[choice.prompt];
    protocol::GenerateRequest r;
    r.id = choice.id;
    if (last) {
        r.prompt = std::move(prompt.tokens);
    } else {
        r.prompt = prompt.tokens;
    }
    if (!prompt.media.empty()) r.media = std::move(prompt.media[choice.index % fields.n]);
    r.sampling = fields.sampling;
    // The same seed for all would make all choices of a prompt the same.
    if (r.sampling.seed) *r.sampling.seed += choice.index % fields.n;
    r.max_tokens = prompt.max_tokens;
    r.min_tokens = fields.min_tokens;
    r.ignore_eos = fields.ignore_eos;
    r.stop_token_ids = fields.stop_token_ids;
    r.top_logprobs = fields.top_logprobs;
    r.constraint = fields.constraint;
    r.deadline = deadline_;
    r.hints = request_.hints;
    r.priority = request_.priority;
    r.tenant = request_.tenant;
    r.cache_salt = request_.cache_salt;
    r.adapter = request_.adapter;
    return r;
}

void Generation::start() {
    const auto self = shared_from_this();
    for (Choice& choice : choices_) {
        if (!request_.output) break;
        auto output = ChoiceOutput::make(*request_.output);
        if (!output) {
            for (Choice& c : choices_) c.finish = "refused";
            release_media(request_);
            return fail(std::move(output.error()), FinishReason::kCancelled);
        }
        choice.output.emplace(std::move(*output));
    }
    for (Choice& choice : choices_) {
        choice.id = hub_.add(self, choice.index);
        const bool last = choice.index % request_.fields.n == request_.fields.n - 1;
        auto accepted =
            request_.entry->model.engine->submit(engine_request(choice, last), hub_.sink());
        if (!accepted) {
            hub_.remove(choice.id);
            choice.finish = "refused";
            // Those after this one were never submitted; of the others the engine has the media.
            release_media(request_);
            for (std::size_t i = choice.index + 1; i < choices_.size(); ++i) {
                choices_[i].finish = "refused";
            }
            return fail(std::move(accepted.error()), FinishReason::kCancelled);
        }
    }
    record_->metrics->prompt_tokens->add(prompt_tokens_);
    if (request_.hints && !request_.hints->explanation.empty()) {
        exchange_->add_header("x-stator-explain", request_.hints->explanation);
    }
}

void Generation::on_event(std::uint32_t index, const StepEvent& event, const StepBatch& batch,
                          TimePoint now) {
    Choice& choice = choices_[index];
    if (ended_ || !choice.finish.empty()) return;
    hub_.text.clear();
    hub_.events.clear();
    hub_.out.clear();
    if (!choice.first && event.count > 0) note_first(choice, event, now);
    if (event.finish) note_cached(choice, event);
    const bool stopped = take_tokens(choice, event, batch);
    if (event.count > 0) choice.last = now;
    if (stopped && !event.finish) request_.entry->model.engine->cancel(choice.id);

    if (!stopped && event.finish == FinishReason::kError) {
        Error e;
        e.code = ErrorCode::kInternal;
        e.message = "the engine failed";
        return fail(event.error.value_or(std::move(e)), FinishReason::kError);
    }
    if (!stopped && event.finish == FinishReason::kCancelled) {
        return fail(ended_early(now), FinishReason::kCancelled);
    }
    if (!stopped && event.finish) choice.detokenizer.finish(hub_.text);
    if (choice.output && (stopped || event.finish)) choice.output->finish(hub_.text, hub_.events);

    keep(choice);
    if (chunks_) stream_piece(choice);
    if (stopped || event.finish == FinishReason::kStop) {
        finish_choice(choice, FinishReason::kStop);
    } else if (event.finish) {
        finish_choice(choice, FinishReason::kLength);
    }
    if (chunks_ && !hub_.out.empty()) exchange_->write(hub_.out);
    if (open_choices_ == 0) complete();
}

/// With the first token, and again at the end: some engines tell it there alone.
void Generation::note_cached(Choice& choice, const StepEvent& event) {
    if (choice.index % request_.fields.n != 0 || event.cached_tokens <= choice.cached) return;
    const std::uint32_t more = event.cached_tokens - choice.cached;
    choice.cached = event.cached_tokens;
    record_->cached_tokens += more;
    record_->metrics->cached_tokens->add(more);
}

void Generation::note_first(Choice& choice, const StepEvent& event, TimePoint now) {
    choice.first = now;
    // The first choice of a prompt finds what others left; the rest finds the first's.
    note_cached(choice, event);
    if (!record_->first_token) {
        record_->first_token = now;
        record_->metrics->first_token(now - record_->received);
    }
}

bool Generation::ends_silently(const StepEvent& event, tokens::TokenId token) const {
    if (event.finish != FinishReason::kStop) return false;
    return request_.entry->model.tokenizer->is_end(token) ||
           std::ranges::find(request_.fields.stop_token_ids, token) !=
               request_.fields.stop_token_ids.end();
}

bool Generation::take_tokens(Choice& choice, const StepEvent& event, const StepBatch& batch) {
    const auto tokens = std::span(batch.tokens).subspan(event.first, event.count);
    std::uint64_t taken = 0;
    bool stopped = false;
    for (const protocol::TokenOutput& token : tokens) {
        ++taken;
        if (request_.fields.return_token_ids) append_token_id(choice.token_ids, token.token);
        if (taken == tokens.size() && ends_silently(event, token.token)) break;
        if (choice.logprobs) {
            choice.logprobs->add(token,
                                 std::span(batch.top).subspan(token.top_first, token.top_count));
        }
        stopped = choice.detokenizer.push(token.token, hub_.text);
        if (choice.output) {
            // Each token by itself: those of thinking are counted.
            const std::uint32_t before = choice.output->reasoning_tokens();
            choice.output->push(hub_.text, hub_.events);
            hub_.text.clear();
            reasoning_tokens_ += choice.output->reasoning_tokens() - before;
            stopped = stopped || choice.output->complete();
        }
        if (stopped) break;
    }
    choice.tokens += static_cast<std::uint32_t>(taken);
    record_->output_tokens += taken;
    record_->metrics->output_tokens->add(taken);
    return stopped;
}

void Generation::keep(Choice& choice) {
    if (!choice.output) {
        if (!chunks_) choice.text += hub_.text;
        return;
    }
    using Kind = text::OutputEvents::Kind;
    for (const auto& event : hub_.events.events) {
        if (event.kind == Kind::kToolBegin) {
            choice.output->calls()[event.tool].id = hub_.ids().next_call();
        }
        if (chunks_) continue;
        if (event.kind == Kind::kContent) choice.text += hub_.events.of(event);
        if (event.kind == Kind::kReasoning) choice.reasoning += hub_.events.of(event);
    }
}

void Generation::stream_piece(Choice& choice) {
    const bool first = !std::exchange(choice.opened, true);
    if (!std::exchange(streaming_, true)) {
        exchange_->add_header("Cache-Control", "no-cache");
        exchange_->begin_stream(200, "text/event-stream; charset=utf-8");
    }
    if (request_.fields.continuous_usage) chunks_->set_usage(usage());
    const bool with_ids = request_.fields.return_token_ids;
    const std::string_view prompt_ids =
        first && with_ids ? prompt_ids_json_[choice.prompt] : std::string_view();
    if (first) {
        const bool perhaps_calls = request_.output && request_.output->tools;
        chunks_->role(hub_.out, choice.index, prompt_ids, perhaps_calls && request_.echo.empty());
    }

    ChunkPiece piece;
    piece.index = choice.index;
    if (first && !request_.echo.empty()) {
        piece.text = request_.echo;
        chunks_->piece(hub_.out, piece);
    }
    piece.text = hub_.text;
    std::string ids;
    if (with_ids && !choice.token_ids.empty()) {
        ids = bracketed(choice.token_ids);
        choice.token_ids.clear();
        piece.token_ids_json = ids;
    }
    if (choice.logprobs && !choice.logprobs->empty()) {
        hub_.logprobs.clear();
        choice.logprobs->append_to(hub_.logprobs);
        choice.logprobs->clear();
        piece.logprobs_json = hub_.logprobs;
    }
    if (choice.output) return stream_events(choice, piece);
    if (request_.api == Api::kCompletion) piece.prompt_ids_json = prompt_ids;
    if (piece.text.empty() && piece.token_ids_json.empty() && piece.logprobs_json.empty() &&
        piece.prompt_ids_json.empty()) {
        return;
    }
    chunks_->piece(hub_.out, piece);
}

/// `piece`: what goes with the first chunk of the step, whatever it is.
void Generation::stream_events(const Choice& choice, ChunkPiece piece) {
    using Kind = text::OutputEvents::Kind;
    for (const auto& event : hub_.events.events) {
        piece.text = hub_.events.of(event);
        piece.tool = event.tool;
        switch (event.kind) {
            case Kind::kContent:
                piece.kind = PieceKind::kContent;
                break;
            case Kind::kReasoning:
                piece.kind = PieceKind::kReasoning;
                break;
            case Kind::kToolBegin:
                piece.kind = PieceKind::kToolBegin;
                piece.call_id = choice.output->calls()[event.tool].id;
                break;
            case Kind::kToolArguments:
                piece.kind = PieceKind::kToolArguments;
                break;
            case Kind::kToolEnd:
                continue;
        }
        chunks_->piece(hub_.out, piece);
        piece.logprobs_json = {};
        piece.token_ids_json = {};
    }
    if (piece.logprobs_json.empty() && piece.token_ids_json.empty()) return;
    piece.kind = PieceKind::kContent;
    piece.text = {};
    chunks_->piece(hub_.out, piece);
}

std::string_view Generation::reason_of(const Choice& choice, FinishReason finish) const {
    const bool calls = choice.output && !choice.output->calls().empty();
    // OpenAI's: a call that the client named itself is no news.
    if (calls && finish == FinishReason::kStop && request_.output->parser.forced_name.empty()) {
        return "tool_calls";
    }
    return to_string(finish);
}

void Generation::count_output(const Choice& choice) const {
    if (!choice.output) return;
    record_->metrics->reasoning_tokens->add(choice.output->reasoning_tokens());
    for (const ChoiceOutput::Call& call : choice.output->calls()) {
        record_->metrics->tool_calls->add();
        if (!call.complete || !valid_arguments(call.arguments)) {
            record_->metrics->tool_call_faults->add();
        }
    }
}

void Generation::finish_choice(Choice& choice, FinishReason finish) {
    const std::string_view reason = reason_of(choice, finish);
    choice.finish = reason;
    count_output(choice);
    record_->metrics->ended_by(finish);
    hub_.remove(choice.id);
    --open_choices_;
    if (chunks_) chunks_->finish(hub_.out, choice.index, reason);
    if (choice.first) record_->metrics->sequence_ended(choice.last - *choice.first, choice.tokens);
    if (!record_->finish.empty()) record_->finish += ',';
    record_->finish += reason;
}

void Generation::complete() {
    ended_ = true;
    if (!chunks_) return respond_whole();
    hub_.out.clear();
    if (request_.fields.include_usage) chunks_->usage(hub_.out, usage());
    ChunkRenderer::done(hub_.out);
    exchange_->write(hub_.out);
    exchange_->end_stream();
}

void Generation::respond_whole() {
    const bool chat = request_.api == Api::kChat;
    const bool with_ids = request_.fields.return_token_ids;
    std::vector<std::string> logprobs(choices_.size());
    std::vector<std::string> ids(choices_.size());
    std::vector<std::string> calls(choices_.size());
    std::vector<WholeChoice> whole;
    whole.reserve(choices_.size());
    for (const Choice& c : choices_) {
        WholeChoice& w = whole.emplace_back();
        w.index = c.index;
        w.text = c.text;
        w.reasoning = c.reasoning;
        if (c.output && !c.output->calls().empty()) {
            std::string& list = calls[c.index];
            for (const auto& call : c.output->calls()) {
                append_tool_call(list, call.id, call.name, call.arguments);
            }
            list = bracketed(list);
            w.tool_calls_json = list;
        }
        w.finish_reason = c.finish;
        if (c.logprobs) {
            c.logprobs->append_to(logprobs[c.index]);
            w.logprobs_json = logprobs[c.index];
        }
        if (with_ids) {
            ids[c.index] = bracketed(c.token_ids);
            w.token_ids_json = ids[c.index];
            if (!chat) w.prompt_ids_json = prompt_ids_json_[c.prompt];
        }
    }
    std::string body;
    append_answer_json(body, request_.api, head_, whole, usage(),
                       chat && with_ids ? prompt_ids_json_[0] : std::string_view());
    exchange_->respond(200, "application/json", body);
}

void Generation::fail(Error error, FinishReason how) {
    if (std::exchange(ended_, true)) return;
    cancel_all(how);
    if (error.param == "constraint") error.param = request_.fields.constraint_field;
    record_->finish = to_string(error.code);
    if (!streaming_) return respond_error(*exchange_, error);
    std::string json;
    append_error_json(json, error);
    hub_.out.clear();
    ChunkRenderer::error(hub_.out, json);
    exchange_->write(hub_.out);
    exchange_->end_stream();
}

void Generation::abandon() {
    if (std::exchange(ended_, true)) return;
    cancel_all(FinishReason::kCancelled);
    record_->finish = to_string(FinishReason::kCancelled);
}

void Generation::cancel_all(FinishReason how) {
    for (Choice& choice : choices_) {
        if (!choice.finish.empty()) continue;
        choice.finish = to_string(how);
        record_->metrics->ended_by(how);
        request_.entry->model.engine->cancel(choice.id);
        hub_.remove(choice.id);
    }
}

Error Generation::ended_early(TimePoint now) const {
    Error e;
    if (deadline_.reached(now)) {
        e.code = ErrorCode::kDeadlineExceeded;
        e.message =
            fmt::format("the request ran out of its time after {:.0f} ms and {} generated tokens",
                        to_ms(now - record_->received), record_->output_tokens);
    } else {
        e.code = ErrorCode::kUnavailable;
        e.message = "the server is stopping; the request was ended before it was done";
    }
    e.retryable = true;
    return e;
}

Usage Generation::usage() const {
    Usage out{prompt_tokens_, record_->output_tokens, record_->cached_tokens, std::nullopt};
    if (request_.api == Api::kChat) out.reasoning_tokens = reasoning_tokens_;
    return out;
}

}  // namespace stator::frontend
