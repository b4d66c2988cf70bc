// SPDX-License-Identifier: Apache-2.0
//
// The trace before and behind a plugin that owns the device: it sees in its place of the chain what comes by,
// and the device does not notice it.
#include <dlfcn.h>

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/software_device.hpp>

namespace hookline {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using enum MigrationState;

constexpr uint32_t kCtrl = 0x00, kMode = 0x08, kBase = 0x1000, kCount = 0x1004, kHead = 0x1008,
                   kTail = 0x100c;

// A library of the build, for the life of the process.
template <typename T>
const T& load(const char* path, const char* symbol) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const void* at = library ? dlsym(library, symbol) : nullptr;
  if (!at) throw std::runtime_error(dlerror());
  return *static_cast<const T*>(at);
}

class Trace : public ::testing::Test {
 protected:
  /// A device whose chain is these plugins, first asked first.
  std::unique_ptr<SoftwareDevice> make(std::initializer_list<const char*> plugins, const std::string& level) {
    std::vector<Link> links;
    for (const char* path : plugins) {
      const auto& plugin = load<hookline_plugin>(path, HOOKLINE_PLUGIN_SYMBOL);
      std::vector<OptionValue> options;
      if (plugin.nr_keys) options.push_back({level, 0, true});
      auto link = make_link(plugin, std::move(options));
      EXPECT_TRUE(link) << link.error().text;
      links.push_back(std::move(*link));
    }
    auto chain = build_chain(std::move(links));
    EXPECT_TRUE(chain) << chain.error().text;
    SoftwareDevice::Options options;
    options.memory = memory_;
    options.log = [this](uint32_t, std::string_view plugin, std::string_view text) {
      if (plugin == "trace") log_.emplace_back(text);
    };
    auto device = SoftwareDevice::create(load<hookline_model>(MODEL, HOOKLINE_MODEL_SYMBOL),
                                         std::move(*chain), std::move(options));
    EXPECT_TRUE(device) << device.error().text;
    return std::move(*device);
  }

  std::vector<std::byte> memory_ = std::vector<std::byte>(4096);
  std::vector<std::string> log_;
};

TEST_F(Trace, SeesWhatOthersTrapInItsPlaceOfTheChain) {
  auto device = make({TRACE, EXAMPLE}, "accesses");
  ASSERT_TRUE(device->write32(0, kMode, 2));
  ASSERT_TRUE(device->write32(0, kBase, 0x100));  // trapped by nobody
  EXPECT_THAT(log_, ElementsAre("BAR 0 0x8 (4 bytes) = 0x2"));

  // In front it sees even what the next plugin refuses, behind it only what that one lets pass.
  std::array<std::byte, 2> half{};
  ASSERT_FALSE(device->write(0, kMode, half));
  EXPECT_EQ(log_.size(), 2u);
  log_.clear();
  device = make({EXAMPLE, TRACE}, "accesses");
  log_.clear();
  ASSERT_FALSE(device->write(0, kMode, half));
  EXPECT_THAT(log_, IsEmpty());
  ASSERT_TRUE(device->write32(0, kMode, 2));
  EXPECT_THAT(log_, ElementsAre("BAR 0 0x8 (4 bytes) = 0x2"));
}

TEST_F(Trace, TrapsNothingItself) {
  auto alone = make({EXAMPLE}, ""), traced = make({TRACE, EXAMPLE}, "accesses");
  const auto with = traced->chain().ranges(), without = alone->chain().ranges();
  ASSERT_EQ(with.size(), without.size());
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_EQ(with[i].offset, without[i].offset);
    EXPECT_EQ(with[i].length, without[i].length);
    EXPECT_EQ(with[i].ops, without[i].ops);
  }
}

class Levels : public Trace, public ::testing::WithParamInterface<const char*> {};

TEST_P(Levels, ChangeNothing) {
  auto work = [&](SoftwareDevice& source, SoftwareDevice& target) {
    for (auto [at, value] : {std::pair(kMode, 3u), {kBase, 0x100u}, {kCount, 16u}, {kCtrl, 1u}, {kTail, 5u}})
      EXPECT_TRUE(source.write32(0, at, value));
    std::array<std::byte, 2> half{};
    EXPECT_EQ(source.write(0, kMode, half).error().code, EINVAL);
    EXPECT_TRUE(source.set_state(stop_copy));
    const auto stream = source.save_all();
    EXPECT_TRUE(stream);
    EXPECT_TRUE(target.set_state(resuming));
    EXPECT_TRUE(target.write_state(*stream));
    EXPECT_TRUE(target.set_state(running));
    EXPECT_TRUE(target.write32(0, kTail, 6));
    EXPECT_EQ(*target.read32(0, kHead), 6u);
    return *stream;
  };
  auto plain = work(*make({EXAMPLE}, ""), *make({EXAMPLE}, ""));
  const auto memory = std::exchange(memory_, std::vector<std::byte>(4096));
  auto traced = work(*make({TRACE, EXAMPLE}, GetParam()), *make({EXAMPLE, TRACE}, GetParam()));
  EXPECT_EQ(traced, plain);  // the stream, byte for byte: each side can be traced or not
  EXPECT_EQ(memory_, memory);
}
INSTANTIATE_TEST_SUITE_P(Trace, Levels, ::testing::Values("none", "state-changes", "accesses"));

TEST_F(Trace, LogsStateChangesAndResetsAndCountsTheRest) {
  auto device = make({TRACE, EXAMPLE}, "state-changes");
  ASSERT_TRUE(device->write32(0, kMode, 2));
  ASSERT_TRUE(device->set_state(stop));
  device->reset();
  device.reset();
  EXPECT_THAT(log_, ElementsAre("state RUNNING to RUNNING_P2P", "state RUNNING_P2P to STOP", "reset",
                                "state STOP to RUNNING",
                                "closed after 0 reads, 1 writes, 3 state changes, 1 resets"));
}

TEST_F(Trace, IsQuietOnRequest) {
  auto device = make({TRACE, EXAMPLE}, "none");
  ASSERT_TRUE(device->write32(0, kMode, 2));
  ASSERT_TRUE(device->set_state(stop));
  EXPECT_THAT(log_, IsEmpty());
}

}  // namespace
}  // namespace hookline
