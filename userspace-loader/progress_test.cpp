// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <unistd.h>

#include <gtest/gtest.h>

#include "table.hpp"

namespace hookline::loader {
namespace {

TEST(ProgressTest, SizesAndTimesReadAsPeopleWriteThem) {
  EXPECT_EQ(size_text(0), "0 B");
  EXPECT_EQ(size_text(1023), "1023 B");
  EXPECT_EQ(size_text(16632), "16.2 KiB");
  EXPECT_EQ(size_text(uint64_t{3} << 40), "3.0 TiB");
  EXPECT_EQ(time_text(std::chrono::microseconds(850)), "850 µs");
  EXPECT_EQ(time_text(std::chrono::microseconds(12340)), "12.3 ms");
  EXPECT_EQ(time_text(std::chrono::milliseconds(4200)), "4.20 s");
}

TEST(ProgressTest, APipeGetsOneLinePerStage) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  {
    Progress progress(ends[1], "0000:01:10.0", 4096);
    progress.stage("stopping");
    progress.stage("stopping");
    progress.stage("saving");
    for (int i = 0; i < 100; ++i) progress.add(10);
    EXPECT_EQ(progress.line(), "0000:01:10.0: saving 1000 B of at most 4.0 KiB");
  }
  ::close(ends[1]);
  char text[256];
  const ssize_t n = ::read(ends[0], text, sizeof text);
  ::close(ends[0]);
  EXPECT_EQ(std::string(text, static_cast<size_t>(n)), "0000:01:10.0: stopping\n0000:01:10.0: saving\n");
}

TEST(TableTest, ColumnsAreAlignedAndLinesEndWithText) {
  EXPECT_EQ(table({{"A", "LONG", "Z"}, {"abc", "", "z"}, {"x"}}), "A    LONG  Z\nabc        z\nx\n");
}

}  // namespace
}  // namespace hookline::loader
