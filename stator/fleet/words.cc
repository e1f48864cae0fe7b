#include "stator/fleet/words.h"

namespace stator::fleet {

Result<void> check_words(const protocol::WorkerInfo* before, const protocol::WorkerInfo& now) {
    if (now.ranks.empty()) {
        return error(ErrorCode::kDataLoss, "worker {} says that it has no ranks", now.name);
    }
    for (std::size_t i = 0; i < now.ranks.size(); ++i) {
        if (now.ranks[i].rank != i) {
            return error(ErrorCode::kDataLoss, "worker {} calls its rank {} number {}", now.name, i,
                         now.ranks[i].rank);
        }
    }
    if (before == nullptr) return {};
    if (before->incarnation != now.incarnation || before->name != now.name) {
        return error(ErrorCode::kDataLoss,
                     "worker {} says in mid-life that it is {}, incarnation "
                     "{:016x} instead of {:016x}",
                     before->name, now.name, now.incarnation.value, before->incarnation.value);
    }
    if (before->loading) return {};
    if (!protocol::same_pool(before->card, now.card)) {
        return error(ErrorCode::kDataLoss,
                     "worker {} says in mid-life that it serves another "
                     "model: pool {} instead of {}",
                     now.name, protocol::pool_id(now.card), protocol::pool_id(before->card));
    }
    if (before->ranks.size() != now.ranks.size()) {
        return error(ErrorCode::kDataLoss,
                     "worker {} says in mid-life that it has {} ranks and not {}", now.name,
                     now.ranks.size(), before->ranks.size());
    }
    return {};
}

}  // namespace stator::fleet
