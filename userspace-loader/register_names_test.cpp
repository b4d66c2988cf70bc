// SPDX-License-Identifier: Apache-2.0
#include "register_names.hpp"

#include <gtest/gtest.h>

namespace hookline::loader {
namespace {

TEST(RegisterNames, StandBehindTheirOffsets) {
  const hookline_register registers[] = {{"CTRL", 0, 0x0, 4}, {"V2PMAILBOX", 0, 0xc40, 4}, {"MODE", 2, 0xc40, 2}};
  hookline_plugin plugin{};
  plugin.registers = registers;
  plugin.nr_registers = 3;
  const auto named = [&](const char* line) { return name_registers(plugin, line); };

  EXPECT_EQ(named("cat-1 access: 0000:01:10.0 channel read region 0 offset 0xc40 length 4 value 0x0 answer 0"),
            "cat-1 access: 0000:01:10.0 channel read region 0 offset 0xc40 (V2PMAILBOX) length 4 value 0x0 answer 0");
  EXPECT_EQ(named("region 0 offset 0x2 length 1"), "region 0 offset 0x2 (CTRL+2) length 1");
  EXPECT_EQ(named("region 2 offset 0xc41"), "region 2 offset 0xc41 (MODE+1)");

  for (const char* line : {"", "region", "region 0", "region x offset 0x0", "region 0 offset 0xz", "region 0 offset 0xc44 length 4",
                           "region 99999999999 offset 0x0", "state: 0000:01:10.0 2 5 0"})
    EXPECT_EQ(named(line), line);
}

}  // namespace
}  // namespace hookline::loader
