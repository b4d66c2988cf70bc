// SPDX-License-Identifier: Apache-2.0
//
// The seeds of the fuzz targets are accepted by what they are seeds for: from there mutations reach every
// check.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <hookline/compatibility.hpp>
#include <hookline/software_device.hpp>

#include "config_check.hpp"
#include "plugin_file.hpp"

namespace hookline {
namespace {

std::string seed(const std::string& name) {
  std::ifstream file(HOOKLINE_SEEDS "/" + name, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  EXPECT_FALSE(bytes.empty()) << name;
  return bytes;
}

struct Anybody final : StreamSink {
  Result<void> on_match(std::string_view) override { return {}; }
  Result<void> on_section(const Section&) override { return {}; }
  Result<void> on_complete() override { return {}; }
};

TEST(FuzzSeeds, StreamsAreComplete) {
  for (const char* name : {"stream/worked-example", "stream/every-kind", "nic-state/reset", "nic-state/busy",
                           "nic-state/version-1", "nic-state/all-filters"}) {
    const std::string bytes = seed(name);
    Anybody sink;
    StreamReader reader(sink);
    const Result<void> ok = reader.write(std::as_bytes(std::span(bytes)));
    EXPECT_TRUE(ok) << name << ": " << ok.error().text;
    EXPECT_TRUE(reader.complete()) << name << "; write them anew: make_seeds tests/fuzz/seeds";
  }
}

TEST(FuzzSeeds, StatesAreLoaded) {
  for (const char* name : {"nic-state/reset", "nic-state/busy", "nic-state/version-1", "nic-state/all-filters"}) {
    std::vector<Link> links;
    links.push_back(make_link(hookline_plugin_v1).value());
    std::vector<std::byte> memory(256 << 10);
    SoftwareDevice::Options options;
    options.memory = memory;
    auto device =
        SoftwareDevice::create(hookline_model_v1, build_chain(std::move(links)).value(), std::move(options))
            .value();
    const std::string bytes = seed(name);
    ASSERT_TRUE(device->set_state(MigrationState::resuming));
    const Result<void> ok = device->write_state(std::as_bytes(std::span(bytes)));
    EXPECT_TRUE(ok) << name << ": " << ok.error().text << "; write them anew: make_seeds tests/fuzz/seeds";
    EXPECT_TRUE(device->set_state(MigrationState::running));
  }
}

TEST(FuzzSeeds, DescriptorsAreRead) {
  for (const char* name : {"descriptor/new.json", "descriptor/old.json", "descriptor/future.json", "descriptor/migration_version"}) {
    const auto descriptor = parse_descriptor(seed(name));
    EXPECT_TRUE(descriptor) << name << ": " << descriptor.error().text;
  }
}

TEST(FuzzSeeds, ThePluginIsOne) {
#if defined(__x86_64__)
  const auto file = loader::inspect_plugin_file(HOOKLINE_SEEDS "/plugin-file/tiny.so");
  EXPECT_TRUE(file) << file.error().text;
#else
  GTEST_SKIP() << "the seed is built for x86-64";
#endif
}

TEST(FuzzSeeds, TheConfigurationIsRight) {
  loader::PluginCatalog catalog({HOOKLINE_PLUGINS}, {.allow_untrusted = true});
  loader::Diagnostics found;
  const loader::Source source("nics.yaml", seed("config/nics.yaml"));
  EXPECT_TRUE(loader::load_config(source, catalog, found))
      << (found.sorted().empty() ? "" : found.sorted().front().text);
}

}  // namespace
}  // namespace hookline
