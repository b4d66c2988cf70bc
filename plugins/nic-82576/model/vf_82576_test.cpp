// SPDX-License-Identifier: Apache-2.0
//
// The traps of the device, each as it was seen, so that a model that forgives what hardware does not is
// noticed.
#include "vf_82576.hpp"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/icmp_peer.hpp"
#include "tests/support/vf_driver.hpp"

namespace nic82576 {
namespace {

using hookline::testing::DmaMemory;
using hookline::testing::echo_request;
using hookline::testing::Frame;
using hookline::testing::Host;
using hookline::testing::VfDriver;
using hookline::testing::vlan_of;
using hookline::testing::with_vlan;
using ::testing::ElementsAre;

constexpr Host kGuest{{2, 0, 0, 0, 0, 1}, 1}, kPeer{{2, 0, 0, 0, 0, 9}, 9};
constexpr uint32_t kEnable = 1u << 25;

class VfModel : public ::testing::Test, public hookline::testing::BarPort {
 protected:
  uint32_t read32(uint32_t offset) override { return vf_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) override { vf_.write32(offset, value); }
  void pause() override {}

  VfDriver start() { return VfDriver::init(*this, DmaMemory{memory_, 0}, {.mac = kGuest.mac}); }
  Frame to_guest(size_t payload = 56) { return echo_request(kPeer, kGuest, 1, 1, payload); }
  Frame from_guest() { return echo_request(kGuest, kPeer, 1, 1); }

  template <typename Span>
  std::byte* at(uint64_t iova, const Span& span) {
    return iova + span.size() <= memory_.size() ? memory_.data() + iova : nullptr;
  }

  std::vector<std::byte> memory_ = std::vector<std::byte>(VfDriver::kMemoryBytes);
  std::array<int, kVectors> interrupts_ = {};
  std::vector<Frame> sent_;
  Vf vf_{Ports{
      .dma_read =
          [this](uint64_t iova, std::span<std::byte> to) {
            if (!at(iova, to)) return false;
            std::memcpy(to.data(), at(iova, to), to.size());
            return true;
          },
      .dma_write =
          [this](uint64_t iova, std::span<const std::byte> from) {
            if (!at(iova, from)) return false;
            std::memcpy(at(iova, from), from.data(), from.size());
            return true;
          },
      .interrupt = [this](uint32_t vector) { ++interrupts_[vector]; },
      .transmit =
          [this](std::span<const std::byte> frame) { sent_.emplace_back(frame.begin(), frame.end()); },
  }};
};

TEST_F(VfModel, EnablingAQueueDoesNotSend) {
  VfDriver nic = start();
  write32(0x3828, 0);
  nic.send(from_guest());
  EXPECT_TRUE(sent_.empty());
  EXPECT_NE(read32(0x3810), read32(0x3818));
  write32(0x3828, kEnable);
  EXPECT_TRUE(sent_.empty());
  write32(0x3818, read32(0x3818));
  EXPECT_EQ(sent_.size(), 1u);
}

TEST_F(VfModel, HeadsCanBeWrittenOnlyWhileTheQueueIsOff) {
  start();
  write32(0x2810, 3);
  EXPECT_EQ(read32(0x2810), 0u);
  write32(0x2828, 0);
  write32(0x2810, 3);
  EXPECT_EQ(read32(0x2810), 3u);
}

TEST_F(VfModel, DropsWhatItHasNoBufferFor) {
  VfDriver nic = start();
  for (uint32_t i = 0; i < VfDriver::kDescriptors - 1; ++i) ASSERT_TRUE(vf_.receive(to_guest()));
  EXPECT_FALSE(vf_.receive(to_guest()));
  ASSERT_TRUE(nic.receive());
  EXPECT_TRUE(vf_.receive(to_guest()));
  write32(0x2828, 0);
  EXPECT_FALSE(vf_.receive(to_guest()));
}

TEST_F(VfModel, MaskRegistersReadBackWhatWasWritten) {
  start();
  write32(0x1524, 2);
  EXPECT_EQ(read32(0x1524), 2u);  // though all three are on
  interrupts_ = {};
  write32(0x1520, 5);
  EXPECT_THAT(interrupts_, ElementsAre(1, 0, 1));
  write32(0x1580, 6);
  EXPECT_EQ(read32(0x1580), 6u);
  EXPECT_EQ(read32(0x1580), 0u);
}

TEST_F(VfModel, AMaskedCauseFiresWhenUnmasked) {
  VfDriver nic = start();
  write32(0x1528, 7);
  interrupts_ = {};
  vf_.receive(to_guest());
  EXPECT_THAT(interrupts_, ElementsAre(0, 0, 0));
  nic.unmask(7);
  EXPECT_THAT(interrupts_, ElementsAre(0, 1, 0));
}

TEST_F(VfModel, VectorsAreOnlyOredIn) {
  start();
  write32(0x1700, 0x8082);
  write32(0x1700, 0x8081);
  EXPECT_EQ(read32(0x1700), 0x8081u);
  interrupts_ = {};
  vf_.receive(to_guest());  // vector 1 | 2: none that this function has
  EXPECT_THAT(interrupts_, ElementsAre(0, 0, 0));
}

TEST_F(VfModel, AResetLeavesRegistersButStopsQueuesAndForgetsFilters) {
  VfDriver nic = start();
  ASSERT_TRUE(nic.set_vlan(5, true));
  vf_.function_reset();
  EXPECT_EQ(read32(0x2828) & kEnable, 0u);
  EXPECT_EQ(read32(0x2808), VfDriver::kDescriptors * 16);
  EXPECT_EQ(read32(0x1700), 0x8081u);
  EXPECT_NE(read32(0x800), 0u);
  write32(0x2828, kEnable);
  EXPECT_FALSE(vf_.receive(to_guest()));
}

TEST_F(VfModel, CountersOnlyGrow) {
  start();
  vf_.receive(to_guest());
  write32(0xf10, 0);
  EXPECT_EQ(read32(0xf10), 1u);
  vf_.function_reset();
  EXPECT_EQ(read32(0xf10), 1u);
}

TEST_F(VfModel, ThePfIsSilentUntilItWasGreeted) {
  start();
  vf_.function_reset();
  write32(0xc40, 4);
  write32(0x800, 5), write32(0x804, 1522);
  write32(0xc40, 1);
  uint32_t status = 0;
  for (int i = 0; i < 100; ++i) status |= read32(0xc40);
  EXPECT_EQ(status & 0x30, 0x20u);  // taken, not answered
}

TEST_F(VfModel, StatusBitsOfTheMailboxAreShownOnce) {
  EXPECT_EQ(read32(0xc40) & 0x80, 0x80u);
  EXPECT_EQ(read32(0xc40) & 0x80, 0u);
}

TEST_F(VfModel, AnAddressOfTheAdministratorIsNotTakenFromTheFunction) {
  vf_.pf().policy.admin_mac = kGuest.mac;
  VfDriver nic = VfDriver::init(*this, DmaMemory{memory_, 0}, {});
  EXPECT_EQ(nic.mac(), kGuest.mac);
  EXPECT_FALSE(nic.set_mac(kGuest.mac));
  vf_.pf().policy.trusted = true;
  EXPECT_TRUE(nic.set_mac(kPeer.mac));
}

TEST_F(VfModel, SpoofedFramesAreNotSent) {
  VfDriver nic = start();
  nic.send(echo_request(kPeer, kGuest, 1, 1));
  EXPECT_TRUE(sent_.empty());
  EXPECT_EQ(nic.reap(), 1u);
}

TEST_F(VfModel, TagsComeFromTheContext) {
  VfDriver nic = start();
  nic.send(from_guest(), {.vlan = 5});
  nic.send(from_guest(), {.vlan = 9, .new_context = false});
  nic.send(from_guest());
  ASSERT_EQ(sent_.size(), 3u);
  EXPECT_EQ(vlan_of(sent_[0]), 5);
  EXPECT_EQ(vlan_of(sent_[1]), 5);
  EXPECT_EQ(vlan_of(sent_[2]), std::nullopt);
  vf_.function_reset();  // does not clear it
  nic = start();
  nic.send(from_guest(), {.vlan = 9, .new_context = false});
  EXPECT_EQ(vlan_of(sent_[3]), 5);
}

TEST_F(VfModel, TagsAreStrippedAndReported) {
  VfDriver nic = start();
  EXPECT_FALSE(vf_.receive(with_vlan(to_guest(), 5)));
  ASSERT_TRUE(nic.set_vlan(5, true));
  EXPECT_TRUE(vf_.receive(with_vlan(to_guest(), 5)));
  const auto frame = nic.receive();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->vlan, 5);
  EXPECT_EQ(frame->bytes, to_guest());
}

TEST_F(VfModel, TheHeadIsWrittenBackWhereTheGuestWantsIt) {
  VfDriver nic = start();
  write32(0x3828, 0);
  write32(0x3838, 2048 | 1);
  write32(0x3828, kEnable);
  nic.send(from_guest());
  uint32_t head;
  std::memcpy(&head, &memory_[2048], 4);
  EXPECT_EQ(head, 1u);
}

}  // namespace
}  // namespace nic82576
