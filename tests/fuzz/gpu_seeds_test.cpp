// SPDX-License-Identifier: Apache-2.0
//
// The seeds of gpu_state_fuzz are accepted: from there mutations reach every check.
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

#include "small_display.hpp"

namespace hookline {
namespace {

TEST(FuzzGpuSeeds, StatesAreLoaded) {
  for (const char* name : {"reset", "used"}) {
    std::ifstream file(std::string(HOOKLINE_SEEDS "/gpu-state/") + name, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    ASSERT_FALSE(bytes.empty()) << name;
    auto device = fuzz::small_display(0);
    ASSERT_TRUE(device) << device.error().text;
    ASSERT_TRUE((*device)->set_state(MigrationState::resuming));
    const Result<void> ok = (*device)->write_state(std::as_bytes(std::span(bytes)));
    EXPECT_TRUE(ok) << name << ": " << ok.error().text << "; write them anew: make_gpu_seeds tests/fuzz/seeds";
    EXPECT_TRUE((*device)->set_state(MigrationState::running));
  }
}

}  // namespace
}  // namespace hookline
