#pragma once

namespace stator {

/// Release of this build, e.g. "0.1.0". Static storage.
const char* version();
/// Git commit of this build, with "-dirty" where the tree was; "unknown" outside a checkout. Static
/// storage.
const char* commit();

}  // namespace stator
