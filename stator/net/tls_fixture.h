#pragma once

#include <memory>
#include <string>

#include "stator/net/stream_fixture.h"
#include "stator/net/tls.h"

namespace stator::net {

/// An authority that signs certificates for tests, as files in a folder.
class Authority {
  public:
    struct Subject {
        std::string name = "stator.test";  ///< DNS name; empty = none
        std::string address;               ///< IP address it is made for too
        long valid_seconds = 3600;         ///< negative: it has run out already
    };

    Authority(const TemporaryFolder& folder, const std::string& name);
    ~Authority();
    Authority(const Authority&) = delete;
    Authority& operator=(const Authority&) = delete;

    [[nodiscard]] const std::string& file() const { return file_; }

    /// Certificate and key; `authorities` is this one. Writes over files of the same name.
    [[nodiscard]] TlsFiles issue(const std::string& file, const Subject& subject) const;

  private:
    struct Keys;
    const TemporaryFolder& folder_;
    std::string file_;
    std::unique_ptr<Keys> keys_;
};

}  // namespace stator::net
