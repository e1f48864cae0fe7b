#include "stator/engine/llama/guide_desk.h"

#include <utility>

namespace stator::engine::llama {

GuideDesk::GuideDesk(std::shared_ptr<const text::Tokenizer> tokenizer, Done done)
    : tokenizer_(std::move(tokenizer)), done_(std::move(done)) {
    thread_ = std::thread([this] { run(); });
}

GuideDesk::~GuideDesk() {
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void GuideDesk::ask(protocol::RequestId id,
                    std::shared_ptr<const protocol::OutputConstraint> constraint,
                    std::vector<tokens::TokenId> resumed) {
    put({id, std::move(constraint), std::move(resumed), false});
}

void GuideDesk::forget(std::shared_ptr<const protocol::OutputConstraint> constraint) {
    put({{}, std::move(constraint), {}, true});
}

void GuideDesk::put(Job job) {
    {
        const std::scoped_lock lock(mutex_);
        jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
}

void GuideDesk::run() {
    while (true) {
        Job job;
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
            if (stopping_) return;
            job = std::move(jobs_.front());
            jobs_.pop_front();
        }
        if (!job.forget) {
            done_(job.id, make(job));
        } else if (cache_) {
            cache_->forget(*job.constraint);
        }
    }
}

Result<text::Guide> GuideDesk::make(const Job& job) {
    if (!cache_) {
        auto factory = text::GuideFactory::make(*tokenizer_);
        if (!factory) return tl::unexpected<Error>(std::move(factory.error()));
        cache_ = std::make_unique<text::GuideCache>(std::move(*factory));
    }
    auto guide = cache_->get(*job.constraint);
    if (!guide) return guide;
    for (const tokens::TokenId token : job.resumed) {
        if (auto ok = guide->accept(token); !ok)
            return tl::unexpected<Error>(std::move(ok.error()));
    }
    return guide;
}

}  // namespace stator::engine::llama
