// SPDX-License-Identifier: Apache-2.0
//
// Frames and interrupts of a VF that a VFIO client drives: under stock vfio-pci, and the same under vfio-pci-hooks.
#include <gtest/gtest.h>

#include "tests/support/icmp_peer.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vf_driver.hpp"
#include "tests/support/vfio_device.hpp"
#include "tests/support/vfio_nic.hpp"

namespace hookline {
namespace {

using namespace std::chrono_literals;
using testing::Host;

constexpr Host kSelf{{0x02, 0x48, 0x4b, 0x00, 0x00, 0x07}, 0x0a000233};
constexpr uint32_t kGateway = 0x0a000202;

class Traffic : public ::testing::TestWithParam<const char*> {
 protected:
  void TearDown() override { EXPECT_TRUE(sysfs::release(sysfs::test_vfs().at(0))); }
};

TEST_P(Traffic, CH3_FramesAndInterruptsOfTheVf) {
  const std::string vf = sysfs::test_vfs().at(0);
  const auto bound = sysfs::bind(vf, GetParam());
  ASSERT_TRUE(bound) << bound.error().text;
  auto container = vfio::Container::create();
  auto memory = vfio::Memory::create(testing::VfDriver::kMemoryBytes);
  auto device = vfio::Device::open(*container, vf);
  ASSERT_TRUE(device) << device.error().text;
  ASSERT_TRUE(container->map_dma(0x10000000, memory->bytes()));
  testing::VfioNic bar(*device);
  bar.enable();
  auto nic = testing::VfDriver::init(bar, {memory->bytes(), 0x10000000}, {.mac = kSelf.mac});

  // What comes within the limit, taken only after an interrupt.
  const auto next = [&](auto parse) -> decltype(parse(std::span<const std::byte>{})) {
    const auto end = std::chrono::steady_clock::now() + 2s;
    while (std::chrono::steady_clock::now() < end) {
      const uint32_t vectors = bar.wait(20ms);
      if (vectors == 0) continue;
      nic.unmask(vectors);
      while (auto frame = nic.receive())
        if (auto found = parse(frame->bytes)) return found;
    }
    return {};
  };

  std::optional<Host> gateway;
  for (int i = 0; i < 10 && !gateway; ++i) {
    ASSERT_TRUE(nic.send(testing::arp_request(kSelf, kGateway)));
    gateway = next([](std::span<const std::byte> frame) { return testing::parse_arp_reply(frame); });
  }
  ASSERT_TRUE(gateway);

  // More than the ring is long, so that it wraps.
  for (uint16_t sequence = 0; sequence < 2 * testing::VfDriver::kDescriptors; ++sequence) {
    nic.reap();
    ASSERT_TRUE(nic.send(testing::echo_request(kSelf, *gateway, 1, sequence)));
    const auto echo = next([](std::span<const std::byte> frame) { return testing::parse_echo_reply(frame); });
    ASSERT_TRUE(echo) << "no answer to request " << sequence;
    ASSERT_EQ(echo->sequence, sequence);
  }
  EXPECT_GE(bar.interrupts(), 2 * testing::VfDriver::kDescriptors);
}

INSTANTIATE_TEST_SUITE_P(Driver, Traffic, ::testing::Values("vfio-pci", "vfio-pci-hooks"),
                         [](const auto& driver) { return driver.index == 0 ? "Stock" : "Hooks"; });

}  // namespace
}  // namespace hookline
