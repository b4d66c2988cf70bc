// SPDX-License-Identifier: Apache-2.0
//
// Addresses and identities of PCI functions as people write them: "0000:01:10.0", "01:10.0", "8086:10ca".
// Plain values; parsing answers nullopt for anything else.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hookline::loader {

struct PciAddress {
  uint32_t domain = 0;
  uint8_t bus = 0, device = 0, function = 0;
  auto operator<=>(const PciAddress&) const = default;
  uint8_t devfn() const { return static_cast<uint8_t>(device << 3 | function); }
};

/// With or without the domain (0 then).
std::optional<PciAddress> parse_pci_address(std::string_view text);
/// As the kernel writes it: "0000:01:10.0".
std::string to_string(const PciAddress& address);

struct PciId {
  uint16_t vendor = 0, device = 0;
  auto operator<=>(const PciId&) const = default;
};

/// "8086:10ca"
std::optional<PciId> parse_pci_id(std::string_view text);
std::string to_string(const PciId& id);

}  // namespace hookline::loader
