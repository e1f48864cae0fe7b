#include "stator/worker/artifact_store.h"

#include <gtest/gtest.h>

namespace stator::worker {
namespace {

TEST(ArtifactStore, NamesBytesByTheirDigest) {
    ArtifactStore store;
    const auto name = store.add("chat-template", "abc");  // FIPS 180-2, appendix B.1
    EXPECT_EQ(name.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(name.kind, "chat-template");
    EXPECT_EQ(name.bytes, 3U);
    ASSERT_TRUE(store.by_sha256.contains(name.sha256));
    EXPECT_EQ(*store.by_sha256.at(name.sha256), "abc");
    EXPECT_EQ(store.add("other", "abc").sha256, name.sha256);
    EXPECT_EQ(store.by_sha256.size(), 1U);
}

}  // namespace
}  // namespace stator::worker
