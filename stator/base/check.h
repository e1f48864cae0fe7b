#pragma once

/// Asserts, chosen by consequence. Never on input: bad input is an Error.
///   STATOR_ASSERT(cond)       debug builds only; for what the surrounding code makes true
///   STATOR_CHECK(cond, why)   always; going on would corrupt something
///   STATOR_BUG(why)           "can't happen" where we can go on: aborts in debug, logs and counts
///   in release

namespace stator::detail {
[[noreturn]] void check_failed(const char* condition, const char* why, const char* file, int line);
void bug(const char* why, const char* file, int line);
}  // namespace stator::detail

namespace stator {
/// How often STATOR_BUG was passed in this process; exported as `stator_bugs_total`.
unsigned long bugs_total();
}  // namespace stator

#define STATOR_CHECK(condition, why)                                             \
    do {                                                                         \
        if (!(condition)) [[unlikely]]                                           \
            ::stator::detail::check_failed(#condition, why, __FILE__, __LINE__); \
    } while (false)

#define STATOR_BUG(why) ::stator::detail::bug(why, __FILE__, __LINE__)

#ifdef NDEBUG
#define STATOR_ASSERT(condition) static_cast<void>(0)
#else
#define STATOR_ASSERT(condition) STATOR_CHECK(condition, "assertion")
#endif
