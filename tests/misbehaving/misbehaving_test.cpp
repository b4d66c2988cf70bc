// SPDX-License-Identifier: Apache-2.0
//
// What the golden files cannot show of plugins that misbehave: what is left of them after they were accepted, and what
// happens when they are opened.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "hookline/chain.hpp"
#include "plugin_catalog.hpp"
#include "tests/misbehaving/no_device.hpp"

namespace hookline::loader {
namespace {

using testing::HasSubstr;

PluginPtr load(const std::string& name) {
  auto plugin = load_plugin(std::string(HOOKLINE_MISBEHAVING) + "/" + name + ".so", {});
  EXPECT_TRUE(plugin) << plugin.error().text;
  return plugin ? *plugin : nullptr;
}

TEST(Misbehaving, BehindAnOlderPluginsObjectNothingIsRead) {
  const PluginPtr plugin = load("older-smaller");
  ASSERT_TRUE(plugin);
  EXPECT_LT(plugin->built_for().size, sizeof(hookline_plugin));
  EXPECT_EQ(plugin->abi().save, nullptr);
  EXPECT_NE(plugin->abi().open, nullptr);
}

TEST(Misbehaving, WhatANewerPluginAddsIsLeftOut) {
  const PluginPtr plugin = load("newer-larger");
  ASSERT_TRUE(plugin);
  EXPECT_GT(plugin->built_for().size, sizeof(hookline_plugin));
  EXPECT_EQ(plugin->built_for().minor, 7);
  EXPECT_EQ(plugin->name(), "newer-larger");
}

TEST(Misbehaving, WhatThrowsInOpenFailsWithItsErrnoAndText) {
  const PluginPtr plugin = load("throws-in-open");
  ASSERT_TRUE(plugin);
  auto link = make_link(plugin->abi(), {}, plugin);
  ASSERT_TRUE(link);
  const auto chain = build_chain({*link});
  ASSERT_TRUE(chain) << chain.error().text;
  tests::NoDevice behind;
  const auto device = OpenDevice::open(*chain, behind, {.address = "0000:01:10.0"});
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code, ENODEV);
  EXPECT_THAT(device.error().text, HasSubstr("throws-in-open"));
  EXPECT_THAT(device.error().text, HasSubstr("no firmware answers"));
}

TEST(Misbehaving, APluginThatHangsIsGivenUp) {
  const std::string path = HOOKLINE_HANGING;
  const auto plugin = load_plugin(path, {});
  ASSERT_FALSE(plugin);
  EXPECT_EQ(plugin.error().text,
            path + ": did not come back within 10 s while being loaded; a plugin has no code that runs then (constructors of global "
                   "objects are such code)");
}

TEST(Misbehaving, AWorkerLoadsWithoutAChild) {
  const auto plugin = load_plugin(std::string(HOOKLINE_MISBEHAVING) + "/older-smaller.so", {.rehearse = false});
  EXPECT_TRUE(plugin) << plugin.error().text;
}

TEST(Misbehaving, ARefusalIsRememberedWithThePath) {
  PluginCatalog catalog({HOOKLINE_MISBEHAVING}, {});
  const auto first = catalog.find("wrong-major");
  const auto second = catalog.find("wrong-major");
  ASSERT_FALSE(first);
  ASSERT_FALSE(second);
  EXPECT_EQ(first.error().text, second.error().text);
  EXPECT_EQ(first.error().code, ENOEXEC);
}

}  // namespace
}  // namespace hookline::loader
