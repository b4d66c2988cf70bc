// SPDX-License-Identifier: Apache-2.0
//
// PCI configuration space in one short text: what a VMM compares at the very end of a migration, known beforehand.
//
// QEMU refuses a destination where (source ^ destination) & cmask & ~wmask & ~w1cmask is not 0 for any byte
// (hw/pci/pci.c, get_pci_config_device); docs/compatibility.md says what its masks cover for a passed-through device.
// The text has the identity in plain and a checksum each of BARs, capabilities and extended capabilities, so that a
// difference says where it is. Registers that operation changes and masks let through are left out. Pure, any thread.
// Errors: EINVAL for what is no configuration space.
//
//     const Result<std::string> print = config_fingerprint(bytes, {.vendor = 0x1234, .device = 1, .bars = bars});
//     // "1234:0001 rev 02 class 020000 bars 5b1c2f00 caps 0f2e1a77 ext 00000000"
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <hookline/result.hpp>

namespace hookline {

/// What a VMM is shown of a function beside its bytes: a VF's own ids and BARs read as something else.
struct FunctionIdentity {
  struct Bar {
    uint64_t size = 0;       ///< 0: none
    uint32_t type_bits = 0;  ///< bits 0 to 3 as in the register
  };
  uint16_t vendor = 0, device = 0;
  std::array<Bar, 6> bars{};
};

/// `config`: 256 or 4096 bytes; fewer is what a process without rights is shown.
Result<std::string> config_fingerprint(std::span<const std::byte> config, const FunctionIdentity& function);

}  // namespace hookline
