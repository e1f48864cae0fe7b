#include "stator/router/overlap_audit.h"

#include <algorithm>
#include <cmath>

#include "stator/base/check.h"

namespace stator::router {
namespace {

/// Of the moving means that are shown: some fifty samples.
constexpr double kRate = 0.02;

/// What was predicted, less what it can't be blamed for.
std::uint32_t predicted(const AuditSample& s) {
    std::uint32_t p = s.predicted_tokens;
    // Of a prompt that is cached whole, engines compute the last block or two again.
    const bool whole = s.prompt_tokens > 0 && p + s.block_tokens > s.prompt_tokens;
    if (whole && s.cached_tokens < p && s.cached_tokens + 2 * s.block_tokens >= p) {
        p = s.cached_tokens;
    }
    // Siblings under way then have come there meanwhile, as was expected.
    if (s.cached_tokens > p && s.cached_tokens <= s.expected_tokens + s.block_tokens) {
        p = s.cached_tokens;
    }
    return p;
}

}  // namespace

std::string_view to_string(Trust trust) {
    switch (trust) {
        case Trust::kTrusted:
            return "trusted";
        case Trust::kResync:
            return "resync";
        case Trust::kDistrusted:
            return "distrusted";
    }
    return "unknown";
}

std::string_view to_string(AuditFinding finding) {
    switch (finding) {
        case AuditFinding::kNone:
            return "predictions hold";
        case AuditFinding::kFoundMore:
            return "it reuses blocks that no event told of: events are lost";
        case AuditFinding::kFoundLess:
            return "it lacks blocks that its events told of: events are lost";
        case AuditFinding::kUnrelated:
            return "it reuses prefixes under other names: another hash seed, block size or "
                   "template";
    }
    return "unknown";
}

OverlapAudit::OverlapAudit(AuditOptions options)
    : options_(options),
      for_mismatch_(std::log(options.faulty_rate / options.usual_rate)),
      for_match_(std::log((1 - options.faulty_rate) / (1 - options.usual_rate))) {
    STATOR_CHECK(0 < options.usual_rate && options.usual_rate < options.faulty_rate &&
                     options.faulty_rate < 1,
                 "a faulty rank is wrong more often than usual");
}

bool OverlapAudit::observe(RankIndex rank, const AuditSample& sample) {
    if (sample.predicted_tokens == 0 && sample.cached_tokens == 0) return false;
    if (rank >= ranks_.size()) ranks_.resize(rank + 1);
    State& s = ranks_[rank];
    if (sample.resyncs_done != s.verdict.resyncs_done) return false;
    // An engine computes at least one token, so that it may not use the last block.
    const std::uint32_t said = predicted(sample);
    const bool more = sample.cached_tokens > said + sample.block_tokens;
    const bool less = said > sample.cached_tokens + sample.block_tokens;
    const bool off = more || less;
    ++s.verdict.samples;
    s.verdict.mismatch_rate += kRate * ((off ? 1.0 : 0.0) - s.verdict.mismatch_rate);
    s.more += kRate * ((more ? 1.0 : 0.0) - s.more);
    s.less += kRate * ((less ? 1.0 : 0.0) - s.less);
    s.unrelated = more && sample.predicted_tokens == 0 ? s.unrelated + 1 : 0;
    if (s.since_resync != ~std::uint32_t{0}) ++s.since_resync;
    return judge(s, off ? for_mismatch_ : for_match_);
}

bool OverlapAudit::judge(State& s, double ratio) const {
    s.faulty = std::clamp(s.faulty + ratio, 0.0, 2 * options_.evidence);
    switch (s.verdict.trust) {
        case Trust::kTrusted:
            if (s.faulty < options_.evidence) return false;
            if (s.unrelated >= options_.unrelated_in_a_row) {
                return accuse(s, AuditFinding::kUnrelated);
            }
            return accuse(s,
                          s.more >= s.less ? AuditFinding::kFoundMore : AuditFinding::kFoundLess);
        case Trust::kResync:
            return false;  // until the snapshot is there
        case Trust::kDistrusted:
            s.healthy = std::max(0.0, s.healthy - ratio);
            if (s.healthy < options_.evidence) {
                if (s.verdict.mismatch_rate > options_.hopeless_rate) s.verdict.believed = false;
                if (s.since_resync >= options_.probation && !s.verdict.wants_snapshot) {
                    s.verdict.wants_snapshot = true;
                    ++s.verdict.resyncs;
                }
                return false;
            }
            s.verdict.trust = Trust::kTrusted;
            s.verdict.finding = AuditFinding::kNone;
            s.verdict.wants_snapshot = false;
            s.verdict.believed = true;
            s.faulty = 0;
            s.since_resync = ~std::uint32_t{0};
            return true;
    }
    return false;
}

bool OverlapAudit::accuse(State& s, AuditFinding finding) const {
    const bool again = s.since_resync <= options_.probation;
    s.verdict.trust = again ? Trust::kDistrusted : Trust::kResync;
    s.verdict.finding = finding;
    if (!again) {
        ++s.verdict.resyncs;
        s.verdict.wants_snapshot = true;
    } else if (finding == AuditFinding::kUnrelated ||
               s.verdict.mismatch_rate > options_.hopeless_rate) {
        s.verdict.believed = false;
    }
    s.faulty = 0;
    s.healthy = 0;
    s.unrelated = 0;
    return true;
}

AuditVerdict OverlapAudit::verdict(RankIndex rank) const {
    return rank < ranks_.size() ? ranks_[rank].verdict : AuditVerdict{};
}

void OverlapAudit::on_resynced(RankIndex rank) {
    if (rank >= ranks_.size()) return;
    State& s = ranks_[rank];
    s.since_resync = 0;
    s.faulty = 0;
    s.unrelated = 0;
    s.verdict.wants_snapshot = false;
    ++s.verdict.resyncs_done;
    if (s.verdict.trust != Trust::kResync) return;
    s.verdict.trust = Trust::kTrusted;
    s.verdict.finding = AuditFinding::kNone;
}

void OverlapAudit::reset(RankIndex rank) {
    if (rank < ranks_.size()) ranks_[rank] = State{};
}

}  // namespace stator::router
