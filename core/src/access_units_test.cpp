// SPDX-License-Identifier: Apache-2.0
#include "access_units.hpp"

#include <gtest/gtest.h>

namespace hookline {
namespace {

TEST(AccessUnits, TakesTheLargestAlignedUnitThatFits) {
  EXPECT_EQ(AccessUnits(0, 8).units(), (std::vector<AccessUnit>{{0, 8}}));
  EXPECT_EQ(AccessUnits(4, 8).units(), (std::vector<AccessUnit>{{4, 4}, {8, 4}}));
  EXPECT_EQ(AccessUnits(1, 7).units(), (std::vector<AccessUnit>{{1, 1}, {2, 2}, {4, 4}}));
  EXPECT_EQ(AccessUnits(0, 19).units(), (std::vector<AccessUnit>{{0, 8}, {8, 8}, {16, 2}, {18, 1}}));
  EXPECT_TRUE(AccessUnits(16, 0).units().empty());
}

TEST(AccessUnits, NoUnitReachesOverACut) {
  AccessUnits units(0x7fe, 12);
  units.cut(0x800);
  EXPECT_EQ(units.units(), (std::vector<AccessUnit>{{0x7fe, 2}, {0x800, 8}, {0x808, 2}}));

  AccessUnits inside(0, 8);
  inside.cut(3);
  inside.cut(4);
  EXPECT_EQ(inside.units(), (std::vector<AccessUnit>{{0, 2}, {2, 1}, {3, 1}, {4, 4}}));
}

TEST(AccessUnits, CutsOutsideAndAtTheEndsChangeNothing) {
  AccessUnits units(8, 8);
  for (const uint64_t edge : {0, 8, 16, 100}) units.cut(edge);
  EXPECT_EQ(units.units(), (std::vector<AccessUnit>{{8, 8}}));
}

}  // namespace
}  // namespace hookline
