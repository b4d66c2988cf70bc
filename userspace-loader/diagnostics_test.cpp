// SPDX-License-Identifier: Apache-2.0
#include "diagnostics.hpp"

#include <gtest/gtest.h>

namespace hookline::loader {
namespace {

std::string shown(const std::string& text, Diagnostic diagnostic, bool color = false) {
  return render(Source("nics.yaml", text), diagnostic, color);
}

TEST(Diagnostics, PlaceLineCaretHintAndNotes) {
  EXPECT_EQ(shown("devices:\n  - plugin: nic-82567\n",
                  {.where = {2, 13, 9}, .text = "unknown plugin \"nic-82567\"", .hint = "did you mean \"nic-82576\"?", .notes = {"one", "two"}}),
            "nics.yaml:2:13: error: unknown plugin \"nic-82567\"\n"
            "   2 |   - plugin: nic-82567\n"
            "     |             ^~~~~~~~~ did you mean \"nic-82576\"?\n"
            "     | one\n"
            "     | two\n");
}

TEST(Diagnostics, TheFileAsAWholeHasNoLine) {
  EXPECT_EQ(shown("", {.kind = Diagnostic::Kind::warning, .text = "empty", .hint = "fill it"}),
            "nics.yaml: warning: empty\n"
            "     | fill it\n");
}

TEST(Diagnostics, ColumnsAndCaretsCountCharacters) {
  EXPECT_EQ(shown("\xc3\xa4\xc3\xb6: \xc3\xbc\xc3\xbc x\n", {.where = {1, 7, 4}, .text = "t"}),
            "nics.yaml:1:5: error: t\n"
            "   1 | \xc3\xa4\xc3\xb6: \xc3\xbc\xc3\xbc x\n"
            "     |     ^~\n");
}

TEST(Diagnostics, NothingInALineReachesTheTerminalAsControl) {
  const std::string text = shown("a\x1b[2J\tb\xff\x7f\xe2\x80\xae\xc2\x9b\n", {.where = {1, 1}, .text = "t"});
  EXPECT_EQ(text,
            "nics.yaml:1:1: error: t\n"
            "   1 | a?[2J b????\n"
            "     | ^\n");
}

TEST(Diagnostics, OfALongLineThePartAroundTheMark) {
  const std::string line = std::string(500, 'a') + "X" + std::string(500, 'b');
  EXPECT_EQ(shown(line, {.where = {1, 501, 1}, .text = "t"}),
            "nics.yaml:1:501: error: t\n"
            "   1 | ..." + std::string(50, 'a') + "X" + std::string(49, 'b') + "...\n"
            "     | " + std::string(53, ' ') + "^\n");
}

TEST(Diagnostics, AMarkBeyondTheTextIsStillShown) {
  EXPECT_EQ(shown("ab", {.where = {1, 10, 5}, .text = "t"}), "nics.yaml:1:10: error: t\n   1 | ab\n     |   ^\n");
  EXPECT_EQ(shown("ab", {.where = {9, 1, 1}, .text = "t"}), "nics.yaml:9:1: error: t\n   9 | \n     | ^\n");
}

TEST(Diagnostics, InTheOrderOfTheFileAndEachOnce) {
  Diagnostics found;
  found.error({5, 1}, "late");
  found.error({2, 9}, "right");
  found.warning({2, 3}, "left");
  found.error({5, 1}, "late", "said by another alias");
  EXPECT_EQ(found.errors(), 2u);
  const auto all = found.sorted();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].text, "left");
  EXPECT_EQ(all[1].text, "right");
  EXPECT_EQ(all[2].text, "late");
}

TEST(Diagnostics, AFileFullOfErrorsIsCountedButNotKept) {
  Diagnostics found;
  for (uint32_t i = 1; i <= 1000; ++i) found.error({i, 1}, "e");
  EXPECT_EQ(found.errors(), 1000u);
  EXPECT_EQ(found.sorted().size(), kKeptDiagnostics);
}

TEST(DidYouMean, FindsSlipsOfTheFingerAndNothingElse) {
  const std::vector<std::string> names = {"nic-82576", "gpu-bochs", "trace"};
  EXPECT_EQ(closest("nic-82567", names), "nic-82576");  // two neighbours swapped
  EXPECT_EQ(closest("trac", names), "trace");
  EXPECT_EQ(closest("gpu_boch", names), "gpu-bochs");
  EXPECT_EQ(closest("example", names), "");
  EXPECT_EQ(closest("", names), "");
  EXPECT_EQ(closest(std::string(100000, 'x'), names), "");
  EXPECT_EQ(did_you_mean("tarce", names), "did you mean \"trace\"?");
}

TEST(Source, KnowsItsLinesHoweverTheyEnd) {
  const Source source("f", "a\r\nb\n\nc");
  EXPECT_EQ(source.lines(), 4u);
  EXPECT_EQ(source.line(1), "a");
  EXPECT_EQ(source.line(3), "");
  EXPECT_EQ(source.line(4), "c");
  EXPECT_EQ(source.line(0), "");
  EXPECT_EQ(source.line(5), "");
}

}  // namespace
}  // namespace hookline::loader
