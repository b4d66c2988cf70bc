// SPDX-License-Identifier: Apache-2.0
//
// Release N of nic-82576 as it was built, and today's, N + 1: both are loaded as files and move a guest to each other, on
// two models of the function.
#include <algorithm>
#include <deque>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "hookline/software_device.hpp"
#include "plugin_library.hpp"
#include "tests/support/icmp_peer.hpp"
#include "tests/support/vf_driver.hpp"

namespace hookline::loader {
namespace {

using namespace hookline::testing;
using ::testing::ElementsAre;
using enum MigrationState;
using Bytes = std::vector<std::byte>;

constexpr Host kGuest{{2, 0, 0, 0, 0, 1}, 0x0a000001}, kPeer{{2, 0, 0, 0, 0, 9}, 0x0a000009};
constexpr uint64_t kIova = 0x10000;
constexpr uint32_t kRxCtl[] = {0x2814, 0x2914};  // what version 1 does not carry

class Bar final : public BarPort {
 public:
  explicit Bar(SoftwareDevice& device) : device_(device) {}
  uint32_t read32(uint32_t offset) override { return device_.read32(0, offset).value(); }
  void write32(uint32_t offset, uint32_t value) override {
    if (const auto ok = device_.write32(0, offset, value); !ok) throw std::runtime_error(ok.error().text);
  }
  void pause() override {}

 private:
  SoftwareDevice& device_;
};

class NicVersions : public ::testing::Test {
 protected:
  using Values = std::vector<std::pair<std::string, std::string>>;

  std::unique_ptr<SoftwareDevice> make(const char* file, uint32_t index, Values values = {}) {
    const auto plugin = load_plugin(file, {});
    if (!plugin) throw std::runtime_error(plugin.error().text);
    auto chain = build_chain({*make_link((*plugin)->abi(), {}, *plugin)});
    if (!chain) throw std::runtime_error(chain.error().text);
    SoftwareDevice::Options options;
    options.index = index;
    options.parameters = std::move(values);
    options.memory = memory_;
    options.grant = SoftwareDevice::Grant::read;
    options.on_transmit = [this](std::span<const std::byte> frame) { wire_.emplace_back(frame.begin(), frame.end()); };
    auto device = SoftwareDevice::create(hookline_model_v1, std::move(*chain), std::move(options));
    if (!device) throw std::runtime_error(device.error().text);
    return std::move(*device);
  }
  std::unique_ptr<SoftwareDevice> old_release(uint32_t index) { return make(HOOKLINE_NIC_V1, index); }
  std::unique_ptr<SoftwareDevice> new_release(uint32_t index, Values values = {}) {
    return make(HOOKLINE_NIC_V2, index, std::move(values));
  }

  DmaMemory guest_memory() { return {std::span(memory_).subspan(kIova, VfDriver::kMemoryBytes), kIova}; }

  /// A guest's driver sets the function up and switches relaxed ordering on.
  void start_guest(SoftwareDevice& device) {
    Bar bar(device);
    VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
    for (const uint32_t at : kRxCtl) bar.write32(at, 0x2a00);
    expect_guest_works(device);
  }
  void expect_guest_works(SoftwareDevice& device) {
    Bar bar(device);
    VfDriver nic = VfDriver::adopt(bar, guest_memory());
    for (int i = 0; i < 10; ++i) {
      const auto sequence = ++sequence_;
      ASSERT_TRUE(nic.send(echo_request(kGuest, kPeer, 42, sequence)));
      for (const Frame& frame : std::exchange(wire_, {}))
        if (const auto reply = answer(kPeer, frame)) device.receive(*reply);
      const auto frame = nic.receive();
      const auto echo = frame ? parse_echo_reply(frame->bytes) : std::nullopt;
      ASSERT_TRUE(echo);
      EXPECT_EQ(echo->sequence, sequence);
    }
  }
  /// What a former guest left, so that what is not restored shows.
  static void poison(SoftwareDevice& device) {
    Bar bar(device);
    for (const uint32_t at : kRxCtl) bar.write32(at, 0x8000);
  }
  static uint32_t rxctl(SoftwareDevice& device) { return device.read32(0, kRxCtl[1]).value(); }

  static Result<void> try_move(SoftwareDevice& from, SoftwareDevice& to) {
    if (const auto ok = from.set_state(stop_copy); !ok) return ok;
    const Result<Bytes> stream = from.save_all();
    if (!stream) return fail(stream.error());
    if (const auto ok = to.set_state(resuming); !ok) return ok;
    if (const auto ok = to.write_state(*stream); !ok) return ok;
    return to.set_state(running);
  }
  static void move(SoftwareDevice& from, SoftwareDevice& to) {
    const auto moved = try_move(from, to);
    ASSERT_TRUE(moved) << moved.error().text;
    from.reset();
  }

  Bytes memory_ = Bytes(2 << 20);
  std::deque<Frame> wire_;
  uint16_t sequence_ = 0;
};

TEST_F(NicVersions, MV5_BothReleasesSayWhatTheyReadAndEmit) {
  const auto old = old_release(0), now = new_release(1);
  EXPECT_THAT(old->chain().reads(), ElementsAre("1"));
  EXPECT_EQ(old->chain().emits(old->parameters()), "1");
  EXPECT_THAT(now->chain().reads(), ElementsAre("1", "2"));
  EXPECT_EQ(now->chain().emits(now->parameters()), "2");
}

TEST_F(NicVersions, MV5_FromNToNPlus1AndByItselfBack) {
  auto old = old_release(0), now = new_release(1);
  poison(*now);
  start_guest(*old);
  move(*old, *now);
  expect_guest_works(*now);
  EXPECT_EQ(rxctl(*now), 0u) << "as after a reset, not what a former guest left";
  EXPECT_THAT(now->parameters(), ElementsAre("1")) << "it came with version 1";
  move(*now, *old);
  expect_guest_works(*old);
}

TEST_F(NicVersions, MV5_FromNPlus1ToNWithVersion1) {
  auto now = new_release(0, {{"state_version", "1"}}), old = old_release(1);
  start_guest(*now);
  move(*now, *old);
  expect_guest_works(*old);
}

TEST_F(NicVersions, MM6_TheVersionCanBeChosenWhileTheGuestRuns) {
  auto now = new_release(0), old = old_release(1);
  start_guest(*now);
  ASSERT_TRUE(now->set_parameter("state_version", "1"));
  move(*now, *old);
  expect_guest_works(*old);
}

TEST_F(NicVersions, MV5_FromNPlus1ToNPlus1WithEverything) {
  auto from = new_release(0), to = new_release(1);
  poison(*to);
  start_guest(*from);
  move(*from, *to);
  expect_guest_works(*to);
  EXPECT_EQ(rxctl(*to), 0x2a00u);
  EXPECT_THAT(to->parameters(), ElementsAre("2"));
}

TEST_F(NicVersions, MV5_ADestinationWithVersion1TakesVersion2) {
  auto from = new_release(0), to = new_release(1, {{"state_version", "1"}});
  start_guest(*from);
  move(*from, *to);
  EXPECT_EQ(rxctl(*to), 0x2a00u);
  EXPECT_THAT(to->parameters(), ElementsAre("2")) << "the source's value is taken over";
}

TEST_F(NicVersions, MV5_FromNPlus1ToNWithVersion2IsRefusedBeforeAByteOfState) {
  auto now = new_release(0), old = old_release(1);
  start_guest(*now);
  ASSERT_TRUE(now->set_state(pre_copy));
  const Result<Bytes> record = now->save_all();
  ASSERT_TRUE(record);
  ASSERT_TRUE(old->set_state(resuming));
  const Result<void> refused = old->write_state(*record);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_THAT(refused.error().text, ::testing::HasSubstr("state version 2"));
  ASSERT_TRUE(now->set_state(running));
  expect_guest_works(*now);
  ASSERT_TRUE(now->set_parameter("state_version", "1")) << "and what the refusal asks for helps";
  old->reset();
  move(*now, *old);
  expect_guest_works(*old);
}

}  // namespace
}  // namespace hookline::loader
