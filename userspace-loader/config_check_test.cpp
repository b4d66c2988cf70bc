// SPDX-License-Identifier: Apache-2.0
//
// The model that comes out of a good file, and that schema, page and checker speak of the same keys. What is wrong with bad
// files, and how it is said, is pinned by tests/golden/check.
#include "config_check.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>

#include "config_keys.hpp"
#include "config_values.hpp"

namespace hookline::loader {
namespace {

using testing::ElementsAre;
using std::chrono::microseconds;
using std::chrono::milliseconds;

const std::string kConfigs = HOOKLINE_CONFIGS;

std::string read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<Config> load(const std::string& text, const std::string& plugins = HOOKLINE_TOYS) {
  const Source source("test.yaml", text);
  PluginCatalog catalog({plugins}, {});
  Diagnostics found;
  auto config = load_config(source, catalog, found);
  for (const Diagnostic& d : found.sorted()) ADD_FAILURE() << render(source, d, false);
  return config;
}

TEST(ConfigCheck, WhatIsNotSaidHasItsDefault) {
  const auto config = load("devices: [ { match: { address: 01:10.0 }, chain: [ { plugin: log-toy } ] } ]");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->file, "test.yaml");
  ASSERT_EQ(config->devices.size(), 1u);
  const DeviceConfig& device = config->devices[0];
  EXPECT_EQ(device.match.address, (PciAddress{0, 1, 0x10, 0}));
  EXPECT_FALSE(device.match.id);
  EXPECT_FALSE(device.create_vfs);
  EXPECT_FALSE(device.whole_function);
  EXPECT_EQ(device.guest_memory, GuestMemory::none);
  EXPECT_EQ(device.limits.state_change, milliseconds(10000));
  EXPECT_EQ(device.limits.access, milliseconds(100));
  EXPECT_EQ(device.busy_poll, microseconds(0));
}

TEST(ConfigCheck, ADeviceOverridesDefaultsKeyByKey) {
  const auto config = load(
      "defaults: { on_worker_loss: fail, limits: { state_change: 3s, access: 7ms } }\n"
      "devices:\n"
      "  - { match: { address: 01:10.0 }, limits: { access: 9ms }, chain: [ { plugin: log-toy } ] }\n"
      "  - { match: { address: 01:10.2 }, on_worker_loss: pass, chain: [ { plugin: log-toy } ] }\n");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->devices[0].limits.state_change, milliseconds(3000));
  EXPECT_EQ(config->devices[0].limits.access, milliseconds(9));
  EXPECT_EQ(config->devices[0].on_worker_loss, WorkerLoss::fail);
  EXPECT_EQ(config->devices[1].limits.access, milliseconds(7));
  EXPECT_EQ(config->devices[1].on_worker_loss, WorkerLoss::pass);
}

TEST(ConfigCheck, AWorkerWatchesAsLongAsTheDeviceSaysAndElseTheDefaults) {
  const auto config = load(
      "defaults: { busy_poll: 50us }\n"
      "devices:\n"
      "  - { match: { address: 01:10.0 }, chain: [ { plugin: log-toy } ] }\n"
      "  - { match: { address: 01:10.2 }, busy_poll: 1us, chain: [ { plugin: log-toy } ] }\n"
      "  - { match: { address: 01:10.4 }, busy_poll: 10ms, chain: [ { plugin: log-toy } ] }\n"
      "  - { match: { address: 01:10.6 }, busy_poll: 10000us, chain: [ { plugin: log-toy } ] }\n"
      "  - { match: { address: 01:11.0 }, busy_poll: 0us, chain: [ { plugin: log-toy } ] }\n");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->devices[0].busy_poll, microseconds(50));
  EXPECT_EQ(config->devices[1].busy_poll, microseconds(1));
  EXPECT_EQ(config->devices[2].busy_poll, milliseconds(10));
  EXPECT_EQ(config->devices[3].busy_poll, milliseconds(10));
  EXPECT_EQ(config->devices[4].busy_poll, microseconds(0));
}

TEST(ConfigCheck, WithAGuardAnAccessFailsWithoutWorkerUnlessToldOtherwise) {
  const auto config = load(
      "devices:\n"
      "  - { match: { address: 01:10.0 }, chain: [ { plugin: log-toy } ] }\n"
      "  - { match: { address: 01:10.2 }, chain: [ { plugin: log-toy }, { plugin: nic-toy } ] }\n"
      "  - { match: { address: 01:10.4 }, on_worker_loss: pass, chain: [ { plugin: nic-toy } ] }\n"
      "  - { match: { address: 01:10.6 }, chain: [ { handler: doorbell } ] }\n");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->devices[0].on_worker_loss, WorkerLoss::pass);
  EXPECT_EQ(config->devices[1].on_worker_loss, WorkerLoss::fail);
  EXPECT_EQ(config->devices[2].on_worker_loss, WorkerLoss::pass);
  EXPECT_EQ(config->devices[3].on_worker_loss, WorkerLoss::pass);
}

TEST(ConfigCheck, VfsAreSortedAndNamedShortly) {
  const auto config = load("devices: [ { match: { pf: enp1s0f0, vf: [7, 0-2, 5] }, create_vfs: 8, chain: [ { plugin: log-toy } ] } ]");
  ASSERT_TRUE(config);
  EXPECT_THAT(config->devices[0].match.vfs, ElementsAre(0, 1, 2, 5, 7));
  EXPECT_EQ(config->devices[0].create_vfs, 8u);
  EXPECT_EQ(to_string(config->devices[0].match), "enp1s0f0 vf 0-2,5,7");
}

TEST(ConfigCheck, OptionsStandInTheOrderOfThePluginsKeys) {
  const auto config = load(
      "devices: [ { match: { address: 01:10.0 }, chain: [ { plugin: nic-toy, label: 17, queues: 0x8, dirty_tracking: false } ] } ]");
  ASSERT_TRUE(config);
  const auto& options = config->devices[0].chain[0].options;
  ASSERT_EQ(options.size(), 5u);
  EXPECT_TRUE(options[0].is_set);  // dirty_tracking
  EXPECT_EQ(options[0].number, 0u);
  EXPECT_EQ(options[1].number, 8u);  // queues
  EXPECT_FALSE(options[2].is_set);   // delay_us: no default, not given
  EXPECT_EQ(options[3].text, "17");  // label: a text may look like a number
  EXPECT_TRUE(options[4].is_set);    // mode: its default
  EXPECT_EQ(options[4].text, "drain");
}

TEST(ConfigCheck, TheKernelIsToldOnePositionForAllPlugins) {
  const auto config = load(
      "devices: [ { match: { address: 01:10.0 },\n"
      "  chain: [ { handler: before }, { plugin: log-toy }, { plugin: nic-toy }, { handler: behind } ] } ]");
  ASSERT_TRUE(config);
  const DeviceConfig& device = config->devices[0];
  EXPECT_THAT(device.handlers, ElementsAre("before", "channel", "behind"));
  ASSERT_TRUE(device.plugins);
  EXPECT_EQ(device.plugins->links().size(), 2u);
  EXPECT_EQ(device.plugins->owner(), std::optional<size_t>(1));
}

TEST(ConfigValues, TimesHaveUnits) {
  const std::array limits = {kMillisecond, kSecond};
  EXPECT_EQ(parse_duration("100ms", limits), milliseconds(100));
  EXPECT_EQ(parse_duration("10s", limits), milliseconds(10000));
  for (const char* text : {"", "10", "s", "1.5s", "-1s", "10 s", "10S", "1h", "010s", "100us", "99999999999999999999s"})
    EXPECT_FALSE(parse_duration(text, limits)) << text;
  const std::array waits = {kMicrosecond, kMillisecond};
  EXPECT_EQ(parse_duration("50us", waits), microseconds(50));
  EXPECT_EQ(parse_duration("1ms", waits), microseconds(1000));
  for (const char* text : {"", "50", "us", "1.5us", "-1us", "50 us", "50US", "1s", "050us", "99999999999999999999us"})
    EXPECT_FALSE(parse_duration(text, waits)) << text;
}

TEST(ConfigValues, NumbersAreDecimalOrHexadecimal) {
  EXPECT_EQ(parse_number("0"), 0u);
  EXPECT_EQ(parse_number("0x2a"), 42u);
  EXPECT_EQ(parse_number("18446744073709551615"), UINT64_MAX);
  for (const char* text : {"", "010", "-1", "+1", "0x", "1e3", "0b1", "1_000", " 1", "18446744073709551616"})
    EXPECT_FALSE(parse_number(text)) << text;
}

// ---- migration parameters

TEST(ConfigCheck, MV5_InitialValuesAreThoseOfTheFileAndElseOfTheOwner) {
  const auto config = load(
      "devices:\n"
      "  - match: { address: 01:10.0 }\n"
      "    migration: { rings: 8, state_version: \"1\" }\n"
      "    chain: [ { plugin: log-toy }, { plugin: nic-toy } ]\n");
  ASSERT_TRUE(config);
  const DeviceConfig& device = config->devices[0];
  ASSERT_EQ(device.parameters.size(), 3u);
  EXPECT_EQ(device.parameters[0], "1");
  EXPECT_EQ(device.parameters[1], "8");
  EXPECT_EQ(device.parameters[2], std::nullopt);
}

// ---- schema, page, examples

std::set<std::string> names(const ConfigSection& section) {
  const auto keys = key_names(section);
  return {keys.begin(), keys.end()};
}

TEST(Schema, HasExactlyTheKeysOfTheChecker) {
  const auto schema = nlohmann::json::parse(read(kConfigs + "/schema/hookline.schema.json"));
  for (const ConfigSection* section : kAllSections) {
    ASSERT_TRUE(schema["$defs"].contains(section->name)) << section->name;
    const auto& definition = schema["$defs"][section->name];
    std::set<std::string> properties, required, wanted;
    for (const auto& [key, value] : definition["properties"].items()) properties.insert(key);
    for (const auto& key : definition.value("required", nlohmann::json::array())) required.insert(key.get<std::string>());
    for (const ConfigKey& key : section->keys)
      if (key.required) wanted.insert(key.name);
    EXPECT_EQ(properties, names(*section)) << section->name;
    EXPECT_EQ(required, wanted) << section->name;
    // Only a plugin's link may hold keys nobody here knows.
    EXPECT_EQ(definition["additionalProperties"].is_object(), section == &kPluginSection) << section->name;
  }
}

TEST(Page, DescribesExactlyTheKeysOfTheChecker) {
  std::set<std::string> described, known;
  std::istringstream page(read(kConfigs + "/README.md"));
  for (std::string line; std::getline(page, line);)
    if (line.rfind("| `", 0) == 0) described.insert(line.substr(3, line.find('`', 3) - 3));
  for (const ConfigSection* section : kAllSections)
    for (const std::string& name : names(*section)) known.insert(name);
  EXPECT_EQ(described, known);
}

// What a user writes for precise dirty tracking, and what the kernel is told.
TEST(ConfigCheck, MP5_AnOptionPutsItsInKernelHandlerBeforeThePlugins) {
  const auto handlers = [](const std::string& chain) {
    const auto config = load("devices: [ { match: { address: 01:10.0 }, chain: [ " + chain + " ] } ]", HOOKLINE_PLUGINS);
    return config ? config->devices[0].handlers : std::vector<std::string>{};
  };
  EXPECT_THAT(handlers("{ plugin: nic-82576 }"), ElementsAre("channel"));
  EXPECT_THAT(handlers("{ plugin: nic-82576, dirty_tracking: false }"), ElementsAre("channel"));
  EXPECT_THAT(handlers("{ plugin: nic-82576, dirty_tracking: true }"), ElementsAre("82576-dirty-log", "channel"));
  EXPECT_THAT(handlers("{ handler: first }, { plugin: trace }, { plugin: nic-82576, dirty_tracking: true }, { handler: last }"),
              ElementsAre("first", "82576-dirty-log", "channel", "last"));
  EXPECT_THAT(handlers("{ handler: 82576-dirty-log }, { plugin: nic-82576, dirty_tracking: true }"),
              ElementsAre("82576-dirty-log", "channel"));
}

TEST(Examples, PassTheCheck) {
  size_t seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".yaml") continue;
    ++seen;
    SCOPED_TRACE(entry.path());
    EXPECT_TRUE(load(read(entry.path()), HOOKLINE_PLUGINS));
  }
  EXPECT_GT(seen, 0u);
}

}  // namespace
}  // namespace hookline::loader
