#include "stator/report/worker_tally.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

namespace stator::report {
namespace {

template <typename Figure>
Spread spread(const std::vector<WorkerRow>& rows, Figure figure) {
    if (rows.empty()) return {};
    Spread s{figure(rows[0]), 0, figure(rows[0])};
    for (const WorkerRow& row : rows) {
        const double value = figure(row);
        s.min = std::min(s.min, value);
        s.max = std::max(s.max, value);
        s.mean += value;
    }
    s.mean /= static_cast<double>(rows.size());
    return s;
}

}  // namespace

void WorkerTally::add(const RequestRecord& record) {
    if (record.outcome == Outcome::kUnfinished) return;
    if (record.worker >= kMaxWorkers) {
        ++left_out_;
        return;
    }
    while (rows_.size() <= record.worker) {
        WorkerRow row;
        row.worker = static_cast<std::uint32_t>(rows_.size());
        rows_.push_back(row);
    }
    WorkerRow& row = rows_[record.worker];
    ++row.requests;
    row.output_tokens += record.output_tokens;
    if (record.outcome != Outcome::kOk) {
        ++row.failed;
        return;
    }
    row.input_tokens += record.input_tokens;
    row.cached_tokens += std::min(record.cached_tokens, record.input_tokens);
}

WorkerSummary WorkerTally::summary() const {
    WorkerSummary summary;
    std::vector<WorkerRow> used;
    std::ranges::copy_if(rows_, std::back_inserter(used),
                         [](const WorkerRow& row) { return row.requests > 0; });
    summary.workers = used.size();
    summary.requests =
        spread(used, [](const WorkerRow& r) { return static_cast<double>(r.requests); });
    summary.output_tokens =
        spread(used, [](const WorkerRow& r) { return static_cast<double>(r.output_tokens); });
    summary.cached_ratio = spread(used, [](const WorkerRow& r) {
        return r.input_tokens == 0
                   ? 0.0
                   : static_cast<double>(r.cached_tokens) / static_cast<double>(r.input_tokens);
    });
    if (used.size() > Report::kMaxWorkerRows) {
        std::ranges::sort(used, [](const WorkerRow& a, const WorkerRow& b) {
            return std::tie(b.requests, a.worker) < std::tie(a.requests, b.worker);
        });
        used.resize(Report::kMaxWorkerRows);
        std::ranges::sort(used, {}, &WorkerRow::worker);
    }
    summary.rows = std::move(used);
    return summary;
}

}  // namespace stator::report
