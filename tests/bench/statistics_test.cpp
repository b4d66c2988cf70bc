// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/statistics.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace hookline::bench {
namespace {

std::vector<double> one_to(int n) {
  std::vector<double> values(static_cast<size_t>(n));
  std::iota(values.rbegin(), values.rend(), 1);  // unsorted on purpose
  return values;
}

TEST(Statistics, MedianOfOddAndEven) {
  EXPECT_EQ(spread(one_to(5)).median, 3);
  EXPECT_EQ(spread(one_to(6)).median, 3.5);
  EXPECT_EQ(spread(one_to(6)).low, 1);
  EXPECT_EQ(spread(one_to(6)).high, 6);
}

// The ranks that tables of the sign test give for 95 %.
TEST(Statistics, IntervalHasTheRanksOfTheSignTest) {
  EXPECT_EQ(median_interval95(one_to(5)), std::nullopt);
  EXPECT_EQ(median_interval95(one_to(6)), std::pair(1.0, 6.0));
  EXPECT_EQ(median_interval95(one_to(9)), std::pair(2.0, 8.0));
  EXPECT_EQ(median_interval95(one_to(21)), std::pair(6.0, 16.0));
}

}  // namespace
}  // namespace hookline::bench
