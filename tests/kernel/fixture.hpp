// SPDX-License-Identifier: Apache-2.0
//
// What most kernel tests begin with: a VF that is defined, bound and opened by a VFIO client, and its worker.
//
// Thread rule: one thread. Errors: GoogleTest failures, or what it throws ends the test.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>

#include "tests/kernel/hooks.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::kernel_test {

// VF BAR 0 of an 82576. Mailbox memory is 16 words that nothing but the mailbox changes: they hold what is written.
constexpr uint32_t kStatus = 0x8, kMailboxMemory = 0x800;
constexpr uint32_t kTrapped = kMailboxMemory + 8;  ///< 8 bytes
constexpr uint64_t kPage = 4096;

/// Reads and writes of 8 bytes in page 0 of BAR 0.
inline vfio_pci_hooks_range trap() {
  return {VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_HOOKS_OP_READ | VFIO_PCI_HOOKS_OP_WRITE, kTrapped, 8};
}

/// A chain of the channel alone, which owns migration.
inline Definition migratable(const std::string& address) {
  Definition definition;
  definition.address = address;
  definition.flags = VFIO_PCI_HOOKS_DEFINE_MIGRATION;
  definition.ranges = {trap()};
  return definition;
}

/// One VF as the VMM of a test has it.
struct Guest {
  explicit Guest(const vfio::Container& container, const std::string& address)
      : device(open(container, address)) {
    const auto enabled = device.enable_memory_and_dma();
    EXPECT_TRUE(enabled) << enabled.error().text;
  }
  static vfio::Device open(const vfio::Container& container, const std::string& address) {
    auto device = vfio::Device::open(container, address);
    if (!device) throw std::runtime_error(device.error().text);
    return std::move(*device);
  }
  int read32(uint64_t offset, uint32_t& value) const {
    auto got = device.read<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, offset);
    if (got) value = *got;
    return got ? 0 : got.error().code;
  }
  int write32(uint64_t offset, uint32_t value) const {
    auto done = device.write<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, offset, value);
    return done ? 0 : done.error().code;
  }

  vfio::Device device;
};

class HooksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    vfs_ = sysfs::test_vfs();
    ASSERT_GE(vfs_.size(), 2u);
    vf_ = vfs_[0];
    auto container = vfio::Container::create();
    ASSERT_TRUE(container) << container.error().text;
    container_.emplace(std::move(*container));
  }

  void TearDown() override {
    container_.reset();
    for (const std::string& vf : vfs_) {
      if (!sysfs::exists(vf)) continue;
      const auto released = sysfs::release(vf);
      EXPECT_TRUE(released) << released.error().text;
      control_.undefine(vf);
    }
  }

  void define_and_bind(const Definition& definition) {
    ASSERT_EQ(control_.define(definition), 0);
    const auto bound = sysfs::bind(definition.address, "vfio-pci-hooks");
    ASSERT_TRUE(bound) << bound.error().text;
  }

  bool wait_served(const std::string& address) {
    return sysfs::wait_until(
        [&] { return (control_.status(address).flags & VFIO_PCI_HOOKS_STATUS_SERVED) != 0; }, std::chrono::seconds(5));
  }

  Control control_;
  std::vector<std::string> vfs_;
  std::string vf_;
  std::optional<vfio::Container> container_;
};

}  // namespace hookline::kernel_test
