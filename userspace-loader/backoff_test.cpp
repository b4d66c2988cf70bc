// SPDX-License-Identifier: Apache-2.0
#include "backoff.hpp"

#include <gtest/gtest.h>

namespace hookline::loader {
namespace {

using std::chrono::milliseconds;

TEST(BackoffTest, RL5_TheFirstReplacementComesAtOnce) {
  Backoff backoff;
  EXPECT_EQ(backoff.next(milliseconds(5)), milliseconds(0));
}

TEST(BackoffTest, GrowsWhileWorkersEndSoonAndStaysBounded) {
  Backoff backoff;
  milliseconds last(-1);
  for (int i = 0; i < 20; ++i) {
    const auto delay = backoff.next(milliseconds(5));
    EXPECT_TRUE(delay > last || delay == Backoff::kLongest);
    last = delay;
  }
  EXPECT_EQ(last, Backoff::kLongest);
}

TEST(BackoffTest, AWorkerThatLivedWellIsReplacedAtOnce) {
  Backoff backoff;
  for (int i = 0; i < 5; ++i) backoff.next(milliseconds(5));
  EXPECT_EQ(backoff.next(Backoff::kLivedWell), milliseconds(0));
  EXPECT_GT(backoff.next(milliseconds(5)), milliseconds(0));
}

}  // namespace
}  // namespace hookline::loader
