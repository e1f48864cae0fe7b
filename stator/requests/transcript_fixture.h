#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/requests/client_link.h"
#include "stator/requests/link_fixture.h"
#include "stator/requests/wire.h"

namespace stator::requests {

/// A recorded conversation of a client and a worker, as a text file (test/transcripts/requests):
///
///   # a comment: what the next frame is
///   > 0 53…      client to worker, on lane 0: one frame (or the preface) in hex
///   < 0 f3…      worker to client; "(07000000)*16000" stands for these bytes 16,000 times
///   client: …    what the client's owner was told, in the end
///   worker: …
struct Transcript {
    struct Line {
        bool to_worker = false;
        LaneId lane;
        std::string bytes;
    };
    std::vector<std::string> settings;  ///< "version 1", "secret s3cret", …: words behind "set "
    std::vector<Line> lines;
    std::vector<std::string> client, worker;

    /// The value of a setting, "" where it is not there.
    [[nodiscard]] std::string setting(std::string_view name) const;
};

[[nodiscard]] std::string hex(std::string_view bytes);
/// nullopt: no hex.
[[nodiscard]] std::optional<std::string> unhex(std::string_view text);
/// "hello, critical, stream 0: {…}".
[[nodiscard]] std::string describe(const Frame& frame);

/// One line a frame, with its description above. `title` becomes the file's first comment.
[[nodiscard]] std::string print(const Transcript& transcript, std::string_view title);
[[nodiscard]] Result<Transcript> parse_transcript(std::string_view text);

/// What an owner has been told, one fact a line.
[[nodiscard]] std::vector<std::string> facts(const ClientRecord& record);
[[nodiscard]] std::vector<std::string> facts(const WorkerRecord& record);

}  // namespace stator::requests
