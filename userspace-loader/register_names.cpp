// SPDX-License-Identifier: Apache-2.0
#include "register_names.hpp"

#include <charconv>
#include <span>
#include <string_view>

#include <fmt/format.h>

namespace hookline::loader {
namespace {

constexpr std::string_view kRegion = "region ", kOffset = " offset 0x";

}  // namespace

std::string name_registers(const hookline_plugin& plugin, const std::string& line) {
  const size_t at = line.find(kRegion);
  if (at == std::string::npos) return line;
  const char* const end = line.data() + line.size();

  uint32_t region = 0;
  const auto after_region = std::from_chars(line.data() + at + kRegion.size(), end, region);
  const size_t rest = after_region.ptr - line.data();
  if (after_region.ec != std::errc() || line.compare(rest, kOffset.size(), kOffset) != 0) return line;
  uint64_t offset = 0;
  const auto after_offset = std::from_chars(line.data() + rest + kOffset.size(), end, offset, 16);
  if (after_offset.ec != std::errc()) return line;

  for (const hookline_register& r : std::span(plugin.registers, plugin.nr_registers)) {
    if (r.region != region || offset < r.offset || offset - r.offset >= r.width) continue;
    const std::string inside = offset == r.offset ? "" : fmt::format("+{}", offset - r.offset);
    return fmt::format("{} ({}{}){}", std::string(line.data(), after_offset.ptr), r.name, inside,
                       std::string(after_offset.ptr, end));
  }
  return line;
}

}  // namespace hookline::loader
