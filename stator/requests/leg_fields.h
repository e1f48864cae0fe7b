#pragma once

#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/codec/msgpack.h"
#include "stator/protocol/generate.h"

namespace stator::requests {

/// What a request says besides its prompt because it is a leg, or has media. Inside the room only.

/// A map of these keys that is longer travels behind the prompt.
inline constexpr std::size_t kInlineLegBytes = 8 * 1024;
/// … and has at most so many bytes there.
inline constexpr std::size_t kMaxLegBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kMaxVideoFrames = 16 * 1024;

/// Whether it takes a worker that knows legs.
[[nodiscard]] bool uses_legs(const protocol::GenerateRequest& request);
/// A prefill or encode leg: it ends with a handoff and without tokens.
[[nodiscard]] bool hands_off(protocol::Leg leg);

/// Bytes of the pixels of a content of that size. Below 2^63 where its sides are within bounds.
[[nodiscard]] std::uint64_t pixels_of(const protocol::MediaContent& content);
/// Whether the item's pixels travel behind the prompt: those of an encode leg, and those whose
/// embeddings are an engine's own.
[[nodiscard]] bool sends_pixels(const protocol::GenerateRequest& request,
                                const protocol::MediaItem& item);

/// How many of the keys `!handoff` and `!media` the request needs.
[[nodiscard]] std::size_t leg_keys(const protocol::GenerateRequest& request);
/// Writes those keys with their values into a map of the caller.
void write_leg_keys(codec::MsgpackWriter& w, const protocol::GenerateRequest& request,
                    TimePoint now);
[[nodiscard]] Result<void> read_handoff_field(codec::MsgpackReader& r,
                                              std::shared_ptr<const protocol::Handoff>& to,
                                              TimePoint now);
/// Contents are without their pixels.
[[nodiscard]] Result<void> read_media_field(codec::MsgpackReader& r,
                                            std::vector<protocol::MediaItem>& to, TimePoint now);
/// A map of those keys and nothing else.
[[nodiscard]] Result<void> read_leg_map(std::string_view bytes, protocol::GenerateRequest& request,
                                        TimePoint now);

/// What must be so between the leg, its handoff and its media, in a prompt of so many tokens. Of a
/// content's pixels only the number that its size asks for is looked at: it is `pixel_bytes`.
[[nodiscard]] Result<void> check_legs(const protocol::GenerateRequest& request,
                                      std::size_t prompt_tokens, std::size_t pixel_bytes);

}  // namespace stator::requests
