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
            return "it reuses blocks that its events did not tell of: some of them are lost";
        case AuditFinding::kFoundLess:
            return "it lacks blocks that its events told of: some of them are lost, or it computes "
                   "other prompts than it is sent";
        case AuditFinding::kOrphans:
            return "its events tell of blocks after others that they never told of: some of them "
                   "are lost";
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
    if (rank >= ranks_.size()) ranks_.resize(rank + 1);
    State& s = ranks_[rank];
    if (sample.resyncs_done != s.verdict.resyncs_done) return false;
    if (s.since_resync != ~std::uint32_t{0}) ++s.since_resync;
    if (std::max(sample.predicted_tokens, sample.cached_tokens) <= sample.block_tokens)
        return false;
    // An engine computes at least one token, so that it may not use the last block.
    const std::uint32_t said = predicted(sample);
    const bool more = sample.cached_tokens > said + sample.block_tokens;
    const bool less = said > sample.cached_tokens + sample.block_tokens;
    const bool off = more || less;
    ++s.verdict.samples;
    s.verdict.mismatch_rate += kRate * ((off ? 1.0 : 0.0) - s.verdict.mismatch_rate);
    s.more += kRate * ((more ? 1.0 : 0.0) - s.more);
    s.less += kRate * ((less ? 1.0 : 0.0) - s.less);
    s.unrelated = more && said <= sample.block_tokens ? s.unrelated + 1 : 0;
    return judge(s, off ? for_mismatch_ : for_match_, false);
}

bool OverlapAudit::observe_orphans(RankIndex rank, std::uint64_t events) {
    if (events == 0) return false;
    if (rank >= ranks_.size()) ranks_.resize(rank + 1);
    const double much = static_cast<double>(std::min<std::uint64_t>(events, 100));
    return judge(ranks_[rank], much * options_.orphan_evidence, true);
}

bool OverlapAudit::judge(State& s, double ratio, bool orphan) const {
    s.faulty = std::clamp(s.faulty + ratio, 0.0, 2 * options_.evidence);
    switch (s.verdict.trust) {
        case Trust::kTrusted:
            if (s.faulty < options_.evidence) return false;
            if (s.unrelated >= options_.unrelated_in_a_row) {
                return accuse(s, AuditFinding::kUnrelated);
            }
            if (orphan) return accuse(s, AuditFinding::kOrphans);
            return accuse(s,
                          s.more >= s.less ? AuditFinding::kFoundMore : AuditFinding::kFoundLess);
        case Trust::kResync:
            return false;  // until the snapshot is there
        case Trust::kDistrusted:
            s.healthy = std::max(0.0, s.healthy - ratio);
            if (s.healthy < options_.recovery_evidence) {
                if (s.unrelated >= options_.unrelated_in_a_row) {
                    s.verdict.finding = AuditFinding::kUnrelated;
                    s.verdict.believed = false;
                }
                weigh_belief(s, ratio > 0);
                if (s.since_resync >= options_.retry && !s.verdict.wants_snapshot) {
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

/// A rank whose predictions all fail gives few samples once it gets requests by load alone; but
/// then each that holds says much.
void OverlapAudit::weigh_belief(State& s, bool off) const {
    const double usual = options_.usual_rate;
    const double hopeless = options_.hopeless_rate;
    if (s.verdict.believed) {
        s.hope = 0;
        if (off && s.verdict.mismatch_rate > hopeless) s.verdict.believed = false;
        return;
    }
    s.hope = off ? std::max(0.0, s.hope - std::log(hopeless / usual))
                 : s.hope + std::log((1 - usual) / (1 - hopeless));
    if (s.hope < options_.recovery_evidence) return;
    s.hope = 0;
    s.unrelated = 0;
    s.verdict.believed = true;
    s.verdict.mismatch_rate = std::min(s.verdict.mismatch_rate, hopeless / 2);
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
