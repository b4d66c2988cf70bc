// SPDX-License-Identifier: Apache-2.0
//
// A VF without a definition: vfio-pci-hooks has to be vfio-pci, field by field, and has to leave the PF alone.
#include <gtest/gtest.h>
#include <linux/pci_regs.h>

#include <map>

#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline {
namespace {

using vfio::Area;
using vfio::Capability;

struct RegionView {
  uint32_t flags;
  uint64_t size, offset;
  std::vector<Capability> capabilities;
  std::optional<std::vector<Area>> sparse;
  bool operator==(const RegionView&) const = default;
};

// Everything an open device tells about itself.
struct Snapshot {
  uint32_t device_flags, regions, irqs;
  std::map<uint32_t, RegionView> region;
  std::map<uint32_t, std::pair<uint32_t, uint32_t>> irq;  // flags, count
  std::vector<std::byte> config;
  std::map<uint32_t, int> features;                       // errno of PROBE GET
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> words;  // the third of each mappable area: in BAR 0 that is STATUS
  int reset = -1;
};

Snapshot look(const std::string& address) {
  Snapshot seen{};
  auto container = vfio::Container::create();
  EXPECT_TRUE(container) << container.error().text;
  auto device = vfio::Device::open(*container, address);
  EXPECT_TRUE(device) << device.error().text;
  if (!device) return seen;

  const auto info = device->info().value();
  seen.device_flags = info.flags;
  seen.regions = info.num_regions;
  seen.irqs = info.num_irqs;
  for (uint32_t i = 0; i < info.num_regions; ++i) {
    auto region = device->region(i);
    if (!region) continue;
    seen.region[i] = {region->flags, region->size, region->offset, region->capabilities, region->sparse};
  }
  for (uint32_t i = 0; i < info.num_irqs; ++i) {
    auto irq = device->irq(i);
    if (irq) seen.irq[i] = {irq->flags, irq->count};
  }
  seen.config.resize(seen.region.at(VFIO_PCI_CONFIG_REGION_INDEX).size);
  EXPECT_TRUE(device->read(VFIO_PCI_CONFIG_REGION_INDEX, 0, seen.config));
  for (uint32_t feature = 0; feature < 16; ++feature) {
    auto probe = device->feature(VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | feature, {});
    seen.features[feature] = probe ? 0 : probe.error().code;
  }
  EXPECT_TRUE(device->enable_memory_and_dma());
  for (uint32_t i = 0; i <= VFIO_PCI_BAR5_REGION_INDEX; ++i) {
    for (const Area& area : device->region(i)->mappable()) {
      auto mapping = device->map(i, area.offset, area.size);
      EXPECT_TRUE(mapping) << mapping.error().text;
      // Touches each page: a hole in what was announced would be a SIGBUS.
      for (uint64_t at = 0; mapping && at < area.size; at += 4096) {
        const uint32_t word = mapping->word(at + 8);
        if (at == 0) seen.words[{i, area.offset}] = word;
      }
    }
  }
  auto reset = device->reset();
  seen.reset = reset ? 0 : reset.error().code;
  return seen;
}

class EmptyChain : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GE(sysfs::test_vfs().size(), 1u);
    vf_ = sysfs::test_vfs()[0];
    pf_ = sysfs::test_pfs()[0];
  }
  void TearDown() override { EXPECT_TRUE(sysfs::release(vf_)); }

  Snapshot look_under(const std::string& driver) {
    auto bound = sysfs::bind(vf_, driver);
    EXPECT_TRUE(bound) << bound.error().text;
    return look(vf_);
  }

  std::string vf_, pf_;
};

TEST_F(EmptyChain, CH3_EmptyChainIsStockVfioPci) {
  const Snapshot stock = look_under("vfio-pci");
  const Snapshot hooks = look_under("vfio-pci-hooks");

  EXPECT_EQ(stock.device_flags, hooks.device_flags);
  EXPECT_EQ(stock.regions, hooks.regions);
  EXPECT_EQ(stock.irqs, hooks.irqs);
  EXPECT_EQ(stock.irq, hooks.irq);
  EXPECT_EQ(stock.features, hooks.features);
  EXPECT_EQ(stock.words, hooks.words);
  EXPECT_FALSE(stock.words.empty());
  EXPECT_EQ(stock.reset, 0);
  EXPECT_EQ(hooks.reset, 0);
  ASSERT_EQ(stock.region.size(), hooks.region.size());
  for (const auto& [index, region] : stock.region) EXPECT_EQ(region, hooks.region.at(index)) << "region " << index;
  ASSERT_EQ(stock.config.size(), hooks.config.size());
  for (size_t i = 0; i < stock.config.size(); ++i)
    EXPECT_EQ(stock.config[i], hooks.config[i]) << "config space at " << i;
}

TEST_F(EmptyChain, CH3_NoMigrationWithoutDefinition) {
  ASSERT_TRUE(sysfs::bind(vf_, "vfio-pci-hooks"));
  auto container = vfio::Container::create();
  auto device = vfio::Device::open(*container, vf_);
  ASSERT_TRUE(device) << device.error().text;
  auto flags = device->migration_flags();
  ASSERT_FALSE(flags);
  EXPECT_EQ(flags.error().code, ENOTTY);
}

TEST_F(EmptyChain, CH4_PfStaysBoundToItsDriver) {
  EXPECT_EQ(sysfs::driver_of(pf_), "igb");
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(sysfs::bind(vf_, "vfio-pci-hooks"));
    EXPECT_EQ(sysfs::driver_of(pf_), "igb");
    ASSERT_TRUE(sysfs::release(vf_));
    EXPECT_EQ(sysfs::driver_of(pf_), "igb");
    EXPECT_EQ(sysfs::driver_of(vf_), "");
  }
}

// Bound only where driver_override names it: never by a device's ids.
TEST_F(EmptyChain, CH3_NeverBindsWithoutOverride) {
  ASSERT_TRUE(sysfs::release(vf_));
  ASSERT_TRUE(sysfs::write("/sys/bus/pci/drivers_probe", vf_));
  EXPECT_NE(sysfs::driver_of(vf_), "vfio-pci-hooks");
}

}  // namespace
}  // namespace hookline
