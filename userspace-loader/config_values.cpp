// SPDX-License-Identifier: Apache-2.0
#include "config_values.hpp"

#include <charconv>

namespace hookline::loader {

std::optional<uint64_t> parse_number(std::string_view text) {
  int base = 10;
  if (text.substr(0, 2) == "0x") {
    text.remove_prefix(2);
    base = 16;
  } else if (text.size() > 1 && text.front() == '0') {
    return std::nullopt;
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<bool> parse_bool(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::optional<std::chrono::microseconds> parse_duration(std::string_view text, std::span<const TimeUnit> units) {
  const size_t digits = text.find_first_not_of("0123456789");
  if (digits == std::string_view::npos) return std::nullopt;
  const auto number = parse_number(text.substr(0, digits));
  // More than any time that is allowed, and leaves room for the multiplication.
  if (!number || *number > 86'400'000) return std::nullopt;
  for (const TimeUnit& unit : units)
    if (text.substr(digits) == unit.name) return *number * unit.length;
  return std::nullopt;
}

std::optional<std::pair<uint64_t, uint64_t>> parse_range(std::string_view text) {
  const size_t dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash));
  if (!first) return std::nullopt;
  if (dash == std::string_view::npos) return std::pair(*first, *first);
  const auto last = parse_number(text.substr(dash + 1));
  if (!last || *last < *first) return std::nullopt;
  return std::pair(*first, *last);
}

bool is_interface_name(std::string_view text) {
  if (text.empty() || text.size() > 15 || text == "." || text == "..") return false;
  for (const char c : text)
    if (c == '/' || c == ':' || c <= ' ' || c == 0x7f) return false;
  return true;
}

}  // namespace hookline::loader
