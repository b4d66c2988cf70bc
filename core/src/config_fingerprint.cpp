// SPDX-License-Identifier: Apache-2.0
#include <hookline/config_fingerprint.hpp>

#include <linux/pci_regs.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "bytes.hpp"
#include "checksum.hpp"

namespace hookline {

namespace {

constexpr size_t kSpace = 256, kExtendedSpace = 4096;
constexpr uint16_t kToTheEnd = 0xffff;

/// Bytes of a capability that say what happened to the device, not what it is: writable by its driver, or
/// status.
struct Volatile {
  uint16_t id;
  uint16_t from, length;  // from the capability's beginning
};

constexpr Volatile kStandard[] = {
    {PCI_CAP_ID_PM, PCI_PM_CTRL, 2},
    {PCI_CAP_ID_VPD, PCI_VPD_ADDR, 6},
    {PCI_CAP_ID_EXP, PCI_EXP_DEVCTL, 4},
    {PCI_CAP_ID_EXP, PCI_EXP_LNKCTL, 4},
    {PCI_CAP_ID_EXP, PCI_EXP_SLTCTL, 4},
    {PCI_CAP_ID_EXP, PCI_EXP_RTCTL, 2},
    {PCI_CAP_ID_EXP, PCI_EXP_RTSTA, 4},
    {PCI_CAP_ID_EXP, PCI_EXP_DEVCTL2, 4},
    {PCI_CAP_ID_EXP, PCI_EXP_LNKCTL2, 4},
    {PCI_CAP_ID_AF, PCI_AF_CTRL, 2},
    // The VMM's own rule: a vendor's bytes are the vendor's.
    {PCI_CAP_ID_VNDR, 3, kToTheEnd},
    // The VMM lets the guest write message, mask and the number of vectors.
    {PCI_CAP_ID_MSI, PCI_MSI_ADDRESS_LO, kToTheEnd},
};

constexpr Volatile kExtended[] = {
    {PCI_EXT_CAP_ID_ERR, 4, kToTheEnd},
    {PCI_EXT_CAP_ID_ACS, PCI_ACS_CTRL, 2},
    {PCI_EXT_CAP_ID_ATS, PCI_ATS_CTRL, 2},
    {PCI_EXT_CAP_ID_PRI, PCI_PRI_CTRL, 4},
    {PCI_EXT_CAP_ID_PRI, PCI_PRI_ALLOC_REQ, 4},
    {PCI_EXT_CAP_ID_PASID, PCI_PASID_CTRL, 2},
    {PCI_EXT_CAP_ID_LTR, 4, 4},
    {PCI_EXT_CAP_ID_VC, 4, kToTheEnd},
    {PCI_EXT_CAP_ID_DPC, 6, kToTheEnd},
    {PCI_EXT_CAP_ID_PTM, PCI_PTM_CTRL, 4},
    {PCI_EXT_CAP_ID_L1SS, PCI_L1SS_CTL1, 8},
};

// Not shown to the guest, so not compared.
constexpr uint16_t kDropped[] = {0, PCI_EXT_CAP_ID_SRIOV, PCI_EXT_CAP_ID_ARI, PCI_EXT_CAP_ID_REBAR};

class Config {
 public:
  explicit Config(std::span<const std::byte> bytes) : bytes_(bytes) {}
  size_t size() const { return bytes_.size(); }
  uint8_t u8(size_t at) const { return at < size() ? std::to_integer<uint8_t>(bytes_[at]) : uint8_t{0}; }
  uint32_t u32(size_t at) const {
    return uint32_t{u8(at)} | uint32_t{u8(at + 1)} << 8 | uint32_t{u8(at + 2)} << 16 |
           uint32_t{u8(at + 3)} << 24;
  }
  std::vector<std::byte> copy(size_t from, size_t to) const {
    return {bytes_.begin() + static_cast<ptrdiff_t>(from), bytes_.begin() + static_cast<ptrdiff_t>(to)};
  }

 private:
  std::span<const std::byte> bytes_;
};

uint32_t add(uint32_t sum, uint64_t number) {
  std::byte bytes[8];
  store_le<uint64_t>(bytes, number);
  return crc32c(bytes, sum);
}

/// One capability: where it is, what it is, and its bytes without the volatile ones.
uint32_t add_capability(uint32_t sum, const Config& config, size_t at, size_t end, uint16_t id, size_t header,
                        std::span<const Volatile> all) {
  std::vector<std::byte> body = config.copy(at, end);
  // The chain is the VMM's own, without what it drops.
  std::fill_n(body.begin(), std::min(header, body.size()), std::byte{0});
  for (const Volatile& v : all) {
    if (v.id != id || v.from >= body.size()) continue;
    const size_t length = std::min<size_t>(v.length, body.size() - v.from);
    std::fill_n(body.begin() + v.from, length, std::byte{0});
  }
  sum = add(add(sum, at), id);
  return crc32c(body, sum);
}

size_t next_after(const std::set<size_t>& places, size_t at, size_t end) {
  const auto next = places.upper_bound(at);
  return next == places.end() ? end : *next;
}

uint32_t capabilities(const Config& config) {
  if (!(config.u8(PCI_STATUS) & PCI_STATUS_CAP_LIST)) return 0;
  std::set<size_t> places;
  for (size_t at = config.u8(PCI_CAPABILITY_LIST) & ~3U;
       at >= PCI_STD_HEADER_SIZEOF && places.insert(at).second;)
    at = config.u8(at + PCI_CAP_LIST_NEXT) & ~3U;
  uint32_t sum = 0;
  for (const size_t at : places) {
    const uint8_t id = config.u8(at);
    size_t end = next_after(places, at, kSpace);
    std::vector<std::byte> bytes = config.copy(0, kSpace);
    if (id == PCI_CAP_ID_MSIX) {
      end = std::min(end, at + PCI_CAP_MSIX_SIZEOF);
      bytes[at + 3] &= std::byte{0x3f};  // enable and mask all are the guest's
    } else if (id == PCI_CAP_ID_MSI) {
      bytes[at + 2] &= std::byte{0x8e};  // enable and the number of vectors in use are the guest's
    }
    sum = add_capability(sum, Config(bytes), at, end, id, 2, kStandard);
  }
  return sum;
}

uint32_t extended_capabilities(const Config& config) {
  if (config.size() < kExtendedSpace) return 0;
  std::set<size_t> places;
  for (size_t at = kSpace;
       at >= kSpace && config.u32(at) != 0 && config.u32(at) != UINT32_MAX && places.insert(at).second;)
    at = PCI_EXT_CAP_NEXT(config.u32(at));
  uint32_t sum = 0;
  for (const size_t at : places) {
    const auto id = static_cast<uint16_t>(PCI_EXT_CAP_ID(config.u32(at)));
    if (std::ranges::find(kDropped, id) != std::end(kDropped)) continue;
    sum = add(sum, PCI_EXT_CAP_VER(config.u32(at)));
    sum = add_capability(sum, config, at, next_after(places, at, kExtendedSpace), id, 4, kExtended);
  }
  return sum;
}

}  // namespace

Result<std::string> config_fingerprint(std::span<const std::byte> bytes, const FunctionIdentity& function) {
  if (bytes.size() != kSpace && bytes.size() != kExtendedSpace)
    return fail(
        EINVAL,
        fmt::format("configuration space has {} bytes, {} or {} are expected; fewer are shown without root",
                    bytes.size(), kSpace, kExtendedSpace));
  const Config config(bytes);
  const uint8_t type = config.u8(PCI_HEADER_TYPE) & 0x7f;
  if (type != PCI_HEADER_TYPE_NORMAL)
    return fail(
        EINVAL,
        fmt::format("configuration space has header type {}, only functions with type 0 are passed through",
                    type));
  uint32_t bars = 0;
  for (const FunctionIdentity::Bar& bar : function.bars)
    bars = add(add(bars, bar.size), bar.size ? bar.type_bits : 0);
  return fmt::format("{:04x}:{:04x} rev {:02x} class {:02x}{:02x}{:02x} bars {:08x} caps {:08x} ext {:08x}",
                     function.vendor, function.device, config.u8(PCI_REVISION_ID),
                     config.u8(PCI_CLASS_DEVICE + 1), config.u8(PCI_CLASS_DEVICE), config.u8(PCI_CLASS_PROG),
                     bars, capabilities(config), extended_capabilities(config));
}

}  // namespace hookline
