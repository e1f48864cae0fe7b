#pragma once

#include <boost/asio/io_context.hpp>

#include "stator/runtime/loop.h"

namespace stator::runtime {

/// The loop's io_context, for rooms that do sockets and timers. Lives as long as the loop; don't
/// run or stop it. The only header that names Asio.
[[nodiscard]] boost::asio::io_context& asio_context(Loop& loop);

}  // namespace stator::runtime
