// SPDX-License-Identifier: Apache-2.0
#include <hookline/config_fingerprint.hpp>

#include <linux/pci_regs.h>

#include <random>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace hookline {
namespace {

using testing::HasSubstr;

constexpr size_t kPm = 0x40, kMsi = 0x48, kMsix = 0x60, kVendor = 0x70, kExpress = 0x80;
constexpr size_t kErrors = 0x100, kSerial = 0x140, kSriov = 0x150, kAts = 0x160;

class Function {
 public:
  Function() : bytes(4096) {
    set(PCI_STATUS, 0x10);
    set(PCI_REVISION_ID, 2);
    set(PCI_CLASS_DEVICE + 1, 2);
    set(PCI_CAPABILITY_LIST, kPm);
    capability(kPm, PCI_CAP_ID_PM, kMsi);
    capability(kMsi, PCI_CAP_ID_MSI, kMsix);
    capability(kMsix, PCI_CAP_ID_MSIX, kVendor);
    set(kMsix + 2, 9);
    capability(kVendor, PCI_CAP_ID_VNDR, kExpress);
    capability(kExpress, PCI_CAP_ID_EXP, 0);
    extended(kErrors, PCI_EXT_CAP_ID_ERR, kSerial);
    extended(kSerial, PCI_EXT_CAP_ID_DSN, kSriov);
    extended(kSriov, PCI_EXT_CAP_ID_SRIOV, kAts);
    extended(kAts, PCI_EXT_CAP_ID_ATS, 0);
    identity = {.vendor = 0x1234, .device = 0x0001};
    identity.bars[0] = {0x4000, 4};
  }
  void set(size_t at, unsigned value) { bytes[at] = static_cast<std::byte>(value); }
  void flip(size_t at) { bytes[at] ^= std::byte{0xff}; }
  std::string print() const {
    const auto text = config_fingerprint(bytes, identity);
    return text ? *text : "refused: " + text.error().text;
  }

  std::vector<std::byte> bytes;
  FunctionIdentity identity;

 private:
  void capability(size_t at, unsigned id, size_t next) {
    set(at, id);
    set(at + 1, static_cast<unsigned>(next));
  }
  void extended(size_t at, unsigned id, size_t next) {
    const uint32_t header = id | 1U << 16 | static_cast<uint32_t>(next) << 20;
    for (size_t i = 0; i < 4; ++i) set(at + i, header >> (8 * i) & 0xff);
  }
};

TEST(ConfigFingerprint, says_in_plain_who_it_is) {
  EXPECT_THAT(Function().print(),
              testing::MatchesRegex(
                  "1234:0001 rev 02 class 020000 bars [0-9a-f]{8} caps [0-9a-f]{8} ext [0-9a-f]{8}"));
}

struct Place {
  const char* name;
  size_t at;
  bool counts;
};
void PrintTo(const Place& place, std::ostream* out) {
  *out << place.name;
}

class ConfigByte : public testing::TestWithParam<Place> {};

TEST_P(ConfigByte, counts_as_the_VMM_counts_it) {
  Function changed;
  changed.flip(GetParam().at);
  EXPECT_EQ(changed.print() != Function().print(), GetParam().counts);
}

// From QEMU's masks (pci_init_cmask, pci_add_capability, vfio_add_std_cap, vfio_add_ext_cap), less what
// operation changes.
constexpr Place kPlaces[] = {
    {"command", PCI_COMMAND, false},
    {"status", PCI_STATUS + 1, false},
    {"revision", PCI_REVISION_ID, true},
    {"class", PCI_CLASS_DEVICE, true},
    {"prog_if", PCI_CLASS_PROG, true},
    {"cache_line_size", PCI_CACHE_LINE_SIZE, false},
    {"bar_address", PCI_BASE_ADDRESS_0 + 3, false},
    {"subsystem", PCI_SUBSYSTEM_ID, false},
    {"interrupt_line", PCI_INTERRUPT_LINE, false},
    {"pm_capabilities", kPm + PCI_PM_PMC, true},
    {"pm_state", kPm + PCI_PM_CTRL, false},
    {"msi_message", kMsi + PCI_MSI_ADDRESS_LO, false},
    {"msix_vectors", kMsix + PCI_MSIX_FLAGS, true},
    {"msix_table", kMsix + PCI_MSIX_TABLE, true},
    {"behind_msix", kMsix + 13, false},
    {"vendor_length", kVendor + 2, true},
    {"vendor_body", kVendor + 5, false},
    {"express_device_capabilities", kExpress + PCI_EXP_DEVCAP, true},
    {"express_device_control", kExpress + PCI_EXP_DEVCTL, false},
    {"express_device_status", kExpress + PCI_EXP_DEVSTA, false},
    {"express_link_capabilities", kExpress + PCI_EXP_LNKCAP, true},
    {"express_link_status", kExpress + PCI_EXP_LNKSTA, false},
    {"error_status", kErrors + PCI_ERR_UNCOR_STATUS, false},
    {"serial_number", kSerial + 4, true},
    {"sriov", kSriov + 8, false},
    {"ats_capability", kAts + PCI_ATS_CAP, true},
    {"ats_control", kAts + PCI_ATS_CTRL, false},
};

INSTANTIATE_TEST_SUITE_P(ConfigFingerprint, ConfigByte, testing::ValuesIn(kPlaces),
                         [](const auto& place) { return std::string(place.param.name); });

TEST(ConfigFingerprint, msix_enable_is_the_guests) {
  Function changed;
  changed.set(kMsix + 3, 0xc0);
  EXPECT_EQ(changed.print(), Function().print());
}

TEST(ConfigFingerprint, BARs_count_by_size_and_type) {
  Function larger, prefetchable;
  larger.identity.bars[0].size = 0x8000;
  prefetchable.identity.bars[0].type_bits = 0xc;
  EXPECT_NE(larger.print(), Function().print());
  EXPECT_NE(prefetchable.print(), Function().print());
}

TEST(ConfigFingerprint, a_capability_that_moved_counts) {
  Function moved;
  moved.set(kPm + 1, kMsix);  // MSI is gone from the chain
  EXPECT_NE(moved.print(), Function().print());
}

TEST(ConfigFingerprint, what_is_no_configuration_space_is_refused) {
  Function short_one, bridge;
  short_one.bytes.resize(64);
  EXPECT_THAT(short_one.print(), HasSubstr("64 bytes, 256 or 4096 are expected"));
  bridge.set(PCI_HEADER_TYPE, 1);
  EXPECT_THAT(bridge.print(), HasSubstr("header type 1"));
  Function conventional;
  conventional.bytes.resize(256);
  EXPECT_THAT(conventional.print(), HasSubstr("ext 00000000"));
}

TEST(ConfigFingerprint, RL4_any_bytes_have_an_end) {
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    Function wild;
    for (std::byte& byte : wild.bytes) byte = static_cast<std::byte>(random());
    wild.set(PCI_HEADER_TYPE, 0);
    wild.set(PCI_STATUS, 0x10);
    EXPECT_EQ(wild.print(), wild.print());
  }
}

}  // namespace
}  // namespace hookline
