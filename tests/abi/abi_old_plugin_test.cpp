// SPDX-License-Identifier: Apache-2.0
//
// A plugin built against the frozen header of ABI 1.0 is loaded, understood and run by today's host.
#include <gtest/gtest.h>

#include "hookline/chain.hpp"
#include "plugin_library.hpp"
#include "tests/misbehaving/no_device.hpp"

namespace hookline::loader {
namespace {

TEST(AbiOldPlugin, EveryFieldIsFoundWhereItWas) {
  const auto plugin = load_plugin(HOOKLINE_OLD_PLUGIN, {});
  ASSERT_TRUE(plugin) << plugin.error().text;
  const hookline_plugin& p = (*plugin)->abi();
  EXPECT_EQ((*plugin)->built_for().minor, 0);
  EXPECT_STREQ(p.name, "abi-v1-0");
  EXPECT_STREQ(p.version, "1.0");
  EXPECT_STREQ(p.summary, "Built against the first header");
  EXPECT_STREQ(p.model, "com.example/old");
  EXPECT_STREQ(p.migration_version, "old");
  EXPECT_TRUE((*plugin)->serves(0x8086, 0x10ca));
  EXPECT_FALSE((*plugin)->serves(0x8086, 0x10cb));
  ASSERT_EQ(p.nr_registers, 1u);
  EXPECT_STREQ(p.registers[0].name, "OLD");
  ASSERT_EQ(p.nr_keys, 1u);
  EXPECT_STREQ(p.keys[0].name, "seven");
  EXPECT_EQ(p.keys[0].min, 7u);
  EXPECT_EQ(p.keys[0].max, 7u);
  ASSERT_EQ(p.stop.nr_steps, 1u);
  EXPECT_EQ(p.stop.steps[0].op, HOOKLINE_STEP_SAVE);
  ASSERT_EQ(p.reset.nr_steps, 1u);
  EXPECT_EQ(p.reset.steps[0].value, 9u);
  EXPECT_TRUE((*plugin)->owns_migration());
  EXPECT_EQ(p.shadow_size, 128u);
  EXPECT_EQ(p.max_state, 4096u);
  EXPECT_EQ(p.ioctls, 2u);
  EXPECT_EQ(p.features, 4u);
  EXPECT_EQ(p.nr_parameters, 0u);
  EXPECT_EQ(p.reads, nullptr);
}

TEST(AbiOldPlugin, EmitsAndReadsItsOneVersion) {
  const auto plugin = load_plugin(HOOKLINE_OLD_PLUGIN, {});
  ASSERT_TRUE(plugin) << plugin.error().text;
  const auto chain = build_chain({*make_link((*plugin)->abi(), {}, *plugin)});
  ASSERT_TRUE(chain) << chain.error().text;
  EXPECT_TRUE(chain->parameters().empty());
  EXPECT_EQ(chain->emits({}), "old");
  ASSERT_EQ(chain->reads().size(), 1u);
  EXPECT_EQ(chain->reads()[0], "old");
}

TEST(AbiOldPlugin, IsOpenedWithItsOptionAndAnswersAnAccess) {
  const auto plugin = load_plugin(HOOKLINE_OLD_PLUGIN, {});
  ASSERT_TRUE(plugin) << plugin.error().text;
  auto link = make_link((*plugin)->abi(), {OptionValue{.number = 7, .is_set = true}}, *plugin);
  ASSERT_TRUE(link) << link.error().text;
  const auto chain = build_chain({*link});
  ASSERT_TRUE(chain) << chain.error().text;
  tests::NoDevice behind;
  auto device = OpenDevice::open(*chain, behind, {.address = "0000:01:10.0", .vendor = 0x8086, .device = 0x10ca});
  ASSERT_TRUE(device) << device.error().text;
  hookline_access access = {};
  access.op = HOOKLINE_OP_READ;
  access.offset = 0x10;
  access.length = 4;
  EXPECT_EQ((*device)->access(access).answer, HOOKLINE_HANDLED);
  EXPECT_EQ(access.value, 0x10u);
}

}  // namespace
}  // namespace hookline::loader
