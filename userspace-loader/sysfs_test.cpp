// SPDX-License-Identifier: Apache-2.0
#include "sysfs.hpp"

#include <cerrno>

#include <gmock/gmock.h>

#include "fake_sysfs.hpp"

namespace hookline::loader {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

PciAddress at(const char* text) { return *parse_pci_address(text); }

class SysfsTest : public testing::Test {
 protected:
  SysfsTest() {
    host_.pf("0000:01:00.0", "igb", 2);
    host_.netdev("0000:01:00.0", "enp1s0f0");
    host_.bind("0000:01:10.2", "igbvf");
    host_.function("0000:00:04.0", "1234:1111", "bochs-drm", "3");
  }
  FakeSysfs host_;
  Sysfs sysfs_{host_.root()};
};

TEST_F(SysfsTest, KnowsAVfByItsPfAndIndex) {
  const auto vf = sysfs_.vf(at("0000:01:00.0"), 1);
  ASSERT_TRUE(vf);
  const auto function = sysfs_.function(*vf);
  ASSERT_TRUE(function) << function.error().text;
  EXPECT_EQ(function->address, at("0000:01:10.2"));
  EXPECT_EQ(to_string(function->id), "8086:10ca");
  EXPECT_EQ(function->pf, at("0000:01:00.0"));
  EXPECT_EQ(function->vf_index, 1u);
  EXPECT_EQ(function->driver, "igbvf");
  EXPECT_EQ(function->driver_override, "");
  EXPECT_EQ(function->iommu_group, "11");
}

TEST_F(SysfsTest, WholeFunctionHasNoVfIndex) {
  const auto function = sysfs_.function(at("0000:00:04.0"));
  ASSERT_TRUE(function);
  EXPECT_FALSE(function->is_vf());
  EXPECT_EQ(function->vf_index, kNoVf);
}

TEST_F(SysfsTest, FindsAPfByItsNetworkInterface) {
  EXPECT_EQ(sysfs_.function_of_netdev("enp1s0f0").value(), at("0000:01:00.0"));
  EXPECT_EQ(sysfs_.function_of_netdev("eth7").error().code, ENOENT);
  EXPECT_EQ(sysfs_.function_of_netdev("../net/enp1s0f0").error().code, ENOENT);
}

TEST_F(SysfsTest, SaysWhatIsNotThere) {
  const auto function = sysfs_.function(at("0000:07:00.0"));
  ASSERT_FALSE(function);
  EXPECT_EQ(function.error().code, ENOENT);
  EXPECT_THAT(function.error().text, HasSubstr("0000:07:00.0"));
  EXPECT_THAT(sysfs_.vf(at("0000:01:00.0"), 2).error().text, HasSubstr("no VF 2"));
}

TEST_F(SysfsTest, PredictsWhereVfsAppear) {
  const auto sriov = sysfs_.sriov(at("0000:01:00.0"));
  ASSERT_TRUE(sriov);
  EXPECT_EQ(sriov->total, 8u);
  EXPECT_EQ(sriov->created, 2u);
  EXPECT_EQ(sriov->vf_device, 0x10ca);
  EXPECT_EQ(predicted_vf(at("0000:01:00.0"), *sriov, 0), at("0000:01:10.0"));
  EXPECT_EQ(predicted_vf(at("0000:01:00.0"), *sriov, 7), at("0000:01:11.6"));
  // Past the end of the bus the next one goes on.
  EXPECT_EQ(predicted_vf(at("0000:01:00.0"), {.first_offset = 0x180, .stride = 2}, 0), at("0000:02:10.0"));
  EXPECT_EQ(predicted_vf(at("0000:01:00.0"), {.first_offset = 0, .stride = 2}, 0), std::nullopt);
  EXPECT_FALSE(sysfs_.sriov(at("0000:00:04.0")));
}

TEST_F(SysfsTest, WritesWhatTheKernelExpects) {
  ASSERT_TRUE(sysfs_.set_driver_override(at("0000:01:10.0"), "vfio-pci-hooks"));
  EXPECT_EQ(sysfs_.function(at("0000:01:10.0"))->driver_override, "vfio-pci-hooks");
  ASSERT_TRUE(sysfs_.set_driver_override(at("0000:01:10.0"), ""));
  EXPECT_EQ(sysfs_.function(at("0000:01:10.0"))->driver_override, "");
  const auto bound = sysfs_.bind(at("0000:01:10.0"), "nothing");
  EXPECT_EQ(bound.error().code, ENOENT);
}

TEST_F(SysfsTest, ListsTheRestOfAGroup) {
  std::filesystem::create_directories(host_.root() / "sys/kernel/iommu_groups/3/devices/0000:00:05.0");
  EXPECT_THAT(sysfs_.group_peers(at("0000:00:04.0")), ElementsAre(at("0000:00:05.0")));
}

}  // namespace
}  // namespace hookline::loader
