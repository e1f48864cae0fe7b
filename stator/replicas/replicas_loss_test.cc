#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <random>

#include "stator/replicas/replicas_fixture.h"
#include "stator/replicas/wire.h"

namespace stator::replicas {
namespace {

using namespace std::chrono_literals;

/// Ways to get it wrong, to see that the test finds them.
enum class Bug : std::uint8_t { kNone, kNoDigests, kPartsFallShort, kRestartsUnseen, kDeafToEnds };

/// Replicas whose messages are lost, doubled and delayed at random, all of them as bytes.
class Crowd {
  public:
    Crowd(std::uint64_t seed, Bug bug) : random_(seed), bug_(bug) {
        for (int i = 0; i < 3; ++i) start();
    }

    void live(int steps) {
        for (int i = 0; i < steps; ++i) {
            now_ += std::chrono::microseconds(draw(5000));
            Member& m = members_[draw(members_.size())];
            const auto what = draw(100);
            if (what < 45) {
                m.open.push_back(m.replica->book(prompt(draw(20), 1 + draw(60)), now_).booking);
            } else if (what < 60 && !m.open.empty()) {
                m.replica->router.on_first_token(m.open[draw(m.open.size())], 5, now_);
            } else if (what < 92 && !m.open.empty()) {
                const auto at = static_cast<std::ptrdiff_t>(draw(m.open.size()));
                m.replica->router.on_end(m.open[static_cast<std::size_t>(at)], now_);
                m.open.erase(m.open.begin() + at);
            } else if (what < 94) {
                change_ranks(m);
            } else if (what == 99 && draw(4) == 0) {
                restart(m);
            }
            if (draw(3) == 0) send(m, &Replica::flush);
            if (draw(20) == 0) tick(true);
            deliver(true);
        }
    }

    /// Nothing is lost any more: some rounds of digests.
    void settle() {
        for (int round = 0; round < 8; ++round) {
            now_ += 600ms;
            tick(false);
            while (!channel_.empty()) {
                now_ += 50ms;
                deliver(false);
            }
        }
        now_ += 10ms;
        for (Member& m : members_) {
            if (bug_ != Bug::kRestartsUnseen) m.replica->peers.expire(now_);
        }
    }

    void end_all() {
        for (Member& m : members_) {
            for (const auto booking : m.open) m.replica->router.on_end(booking, now_);
            m.open.clear();
        }
    }

    /// Each knows of each other what is true, and has it in its router.
    [[nodiscard]] bool agree() const {
        for (const Member& m : members_) {
            std::size_t all = 0;
            for (const Member& other : members_) {
                if (&other == &m) continue;
                std::vector<Message> out;
                Ask ask;
                ask.ranges = {NumberRange{}};
                auto journal = other.replica->journal;  // a copy, to be asked
                journal.answer(ask, out);
                std::vector<PeerTable::Known> truth;
                for (const Message& message : out) {
                    const auto* part = std::get_if<Part>(&message);
                    if (part == nullptr) continue;
                    for (const auto& e : part->bookings) {
                        truth.push_back({e.booking->number, e.prefilled});
                    }
                }
                if (m.replica->peers.known(other.told_as) != truth) return false;
                all += truth.size();
            }
            std::size_t placeless = 0;
            std::size_t known = 0;
            for (const auto& p : m.replica->peers.peers()) {
                placeless += p.placeless;
                known += p.bookings;
            }
            if (known != all || m.replica->router.peers_bookings() > all - placeless) return false;
        }
        return true;
    }
    /// After all have ended: nothing is left anywhere.
    [[nodiscard]] bool empty() const {
        for (const Member& m : members_) {
            const auto& c = m.replica->router.ranks().columns();
            if (m.replica->router.peers_bookings() != 0) return false;
            for (std::size_t r = 0; r < c.own.size(); ++r) {
                if (c.own[r] != 0 || c.total[r] != 0 || c.decoding[r] != 0 || c.kv_tokens[r] != 0) {
                    return false;
                }
            }
        }
        return true;
    }

  private:
    struct Member {
        std::unique_ptr<Replica> replica;
        ReplicaId told_as;
        std::vector<router::BookingId> open;
        std::map<std::string, router::RankIndex> ranks;
    };
    struct Flying {
        ReplicaId from;
        std::string bytes;
        std::size_t to = 0;
        Nanos at{0};
    };

    std::uint64_t draw(std::uint64_t below) { return random_() % below; }

    void start() {
        Member m;
        m.replica = std::make_unique<Replica>(next_id_++, 0);
        m.told_as = m.replica->id;
        for (int r = 0; r < 4; ++r) {
            const std::string name = "w" + std::to_string(r);
            m.ranks[name] = m.replica->add_rank(name);
        }
        members_.push_back(std::move(m));
    }

    void restart(Member& m) {
        const ReplicaId told_as = m.told_as;
        const std::size_t at = static_cast<std::size_t>(&m - members_.data());
        start();
        std::swap(members_[at], members_.back());
        members_.pop_back();
        if (bug_ == Bug::kRestartsUnseen) members_[at].told_as = told_as;
    }

    void change_ranks(Member& m) {
        const std::string name = "w" + std::to_string(1 + draw(3));
        const auto found = m.ranks.find(name);
        if (found == m.ranks.end()) {
            m.ranks[name] = m.replica->add_rank(name);
        } else {
            m.replica->router.remove_rank(found->second, now_);
            m.ranks.erase(found);
        }
    }

    template <typename Make>
    void send(Member& m, Make make) {
        if constexpr (std::is_same_v<Make, std::vector<Message> (Replica::*)()>) {
            fly(m, (m.replica.get()->*make)());
        } else {
            fly(m, make(*m.replica));
        }
    }

    void fly(const Member& m, const std::vector<Message>& messages) {
        for (Message message : messages) {
            if (std::holds_alternative<Digest>(message) && bug_ == Bug::kNoDigests) continue;
            if (auto* part = std::get_if<Part>(&message)) {
                if (bug_ == Bug::kPartsFallShort && !part->bookings.empty()) {
                    part->bookings.pop_back();
                }
            }
            if (auto* delta = std::get_if<Delta>(&message); delta && bug_ == Bug::kDeafToEnds) {
                std::erase_if(delta->events, [](const BookingEvent& e) {
                    return e.kind == BookingEvent::Kind::kEnded;
                });
            }
            std::string bytes;
            encode("pool", message, now_, bytes);
            for (std::size_t to = 0; to < members_.size(); ++to) {
                if (members_[to].replica == m.replica) continue;
                channel_.push_back({m.told_as, bytes, to, now_});
            }
        }
    }

    void tick(bool some) {
        for (Member& m : members_) {
            if (some && draw(2) == 0) continue;
            send(m, [&](Replica& r) { return r.digest(now_); });
            m.replica->peers.expire(now_);
            for (const Ask& ask : m.replica->asks(now_)) fly(m, {ask});
        }
    }

    void deliver(bool badly) {
        std::vector<Flying> later;
        std::vector<Flying> now = std::move(channel_);
        channel_.clear();
        if (badly) std::shuffle(now.begin(), now.end(), random_);
        for (Flying& f : now) {
            if (badly && draw(10) == 0) continue;
            if (badly && draw(3) == 0) {
                later.push_back(std::move(f));
                continue;
            }
            if (badly && draw(10) == 0) later.push_back(f);
            take(f);
        }
        channel_.insert(channel_.end(), later.begin(), later.end());
    }

    void take(const Flying& f) {
        Member& m = members_[f.to];
        auto read = decode(f.bytes, now_);
        ASSERT_TRUE(read) << read.error().message;
        m.replica->peers.take(f.from, read->message, now_);
        if (const auto* ask = std::get_if<Ask>(&read->message); ask && ask->of == m.told_as) {
            std::vector<Message> out;
            m.replica->journal.answer(*ask, out);
            fly(m, out);
        }
        for (const Ask& ask : m.replica->asks(now_)) fly(m, {ask});
    }

    std::mt19937_64 random_;
    Bug bug_;
    std::uint64_t next_id_ = 1;
    std::vector<Member> members_;
    std::vector<Flying> channel_;
    Nanos now_ = 1s;
};

bool holds(std::uint64_t seed, Bug bug) {
    Crowd crowd(seed, bug);
    for (int phase = 0; phase < 2; ++phase) {
        crowd.live(300);
        crowd.settle();
        if (!crowd.agree()) return false;
    }
    crowd.end_all();
    crowd.settle();
    return crowd.agree() && crowd.empty();
}

TEST(ReplicasUnderLoss, EveryReplicaEndsWithTheTruth) {
    EXPECT_TRUE(rc::check("after quiet digests, each knows the others' bookings",
                          [](std::uint64_t seed) { RC_ASSERT(holds(seed, Bug::kNone)); }));
}

TEST(ReplicasUnderLoss, PlantedBugsAreFound) {
    for (const Bug bug : {Bug::kNoDigests, Bug::kPartsFallShort, Bug::kRestartsUnseen}) {
        bool found = false;
        for (std::uint64_t seed = 1; seed <= 20 && !found; ++seed) found = !holds(seed, bug);
        EXPECT_TRUE(found) << static_cast<int>(bug);
    }
}

/// Ends that are lost on the way are no harm: digests and parts find them.
TEST(ReplicasUnderLoss, LostEndsAreRepaired) {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) EXPECT_TRUE(holds(seed, Bug::kDeafToEnds));
}

}  // namespace
}  // namespace stator::replicas
