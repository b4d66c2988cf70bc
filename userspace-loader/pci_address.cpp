// SPDX-License-Identifier: Apache-2.0
#include "pci_address.hpp"

#include <charconv>

#include <fmt/format.h>

namespace hookline::loader {
namespace {

// Exactly `digits` hexadecimal digits at the front of `text`, which it consumes.
std::optional<uint32_t> take_hex(std::string_view& text, size_t digits) {
  uint32_t value = 0;
  if (text.size() < digits) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, value, 16);
  if (error != std::errc() || end != text.data() + digits) return std::nullopt;
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::optional<PciAddress> parse_pci_address(std::string_view text) {
  PciAddress address;
  // Domains have four digits; those behind a VMD bridge have five.
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos && text.find(':', colon + 1) != std::string_view::npos) {
    if (colon < 4 || colon > 5) return std::nullopt;
    const auto domain = take_hex(text, colon);
    if (!domain || !take(text, ':')) return std::nullopt;
    address.domain = *domain;
  }
  const auto bus = take_hex(text, 2);
  if (!bus || !take(text, ':')) return std::nullopt;
  const auto device = take_hex(text, 2);
  if (!device || *device > 31 || !take(text, '.')) return std::nullopt;
  const auto function = take_hex(text, 1);
  if (!function || *function > 7 || !text.empty()) return std::nullopt;
  address.bus = static_cast<uint8_t>(*bus);
  address.device = static_cast<uint8_t>(*device);
  address.function = static_cast<uint8_t>(*function);
  return address;
}

std::string to_string(const PciAddress& a) {
  return fmt::format("{:04x}:{:02x}:{:02x}.{}", a.domain, a.bus, a.device, a.function);
}

std::optional<PciId> parse_pci_id(std::string_view text) {
  const auto vendor = take_hex(text, 4);
  if (!vendor || !take(text, ':')) return std::nullopt;
  const auto device = take_hex(text, 4);
  if (!device || !text.empty()) return std::nullopt;
  return PciId{static_cast<uint16_t>(*vendor), static_cast<uint16_t>(*device)};
}

std::string to_string(const PciId& id) { return fmt::format("{:04x}:{:04x}", id.vendor, id.device); }

}  // namespace hookline::loader
