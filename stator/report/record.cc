#include "stator/report/record.h"

namespace stator::report {

std::string_view to_string(Outcome outcome) {
    switch (outcome) {
        case Outcome::kOk:
            return "ok";
        case Outcome::kRefused:
            return "refused";
        case Outcome::kHttpError:
            return "http_error";
        case Outcome::kConnect:
            return "connect";
        case Outcome::kReset:
            return "reset";
        case Outcome::kTimeout:
            return "timeout";
        case Outcome::kBadAnswer:
            return "bad_answer";
        case Outcome::kServerError:
            return "server_error";
        case Outcome::kUnfinished:
            return "unfinished";
    }
    return "unknown";
}

}  // namespace stator::report
