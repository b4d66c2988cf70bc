// SPDX-License-Identifier: Apache-2.0
//
// Single values of a configuration, as people write them. Pure functions; nullopt: it is none.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace hookline::loader {

/// Decimal without leading zeros (010 is 8 to some and 10 to others), or 0x and hexadecimal digits.
std::optional<uint64_t> parse_number(std::string_view text);

/// true or false, nothing else.
std::optional<bool> parse_bool(std::string_view text);

struct TimeUnit {
  std::string_view name;
  std::chrono::microseconds length;
};
inline constexpr TimeUnit kMicrosecond = {"us", std::chrono::microseconds(1)};
inline constexpr TimeUnit kMillisecond = {"ms", std::chrono::milliseconds(1)};
inline constexpr TimeUnit kSecond = {"s", std::chrono::seconds(1)};

/// A whole number and one of these units: "100ms", "10s".
std::optional<std::chrono::microseconds> parse_duration(std::string_view text, std::span<const TimeUnit> units);

/// "3" or "0-3": first and last.
std::optional<std::pair<uint64_t, uint64_t>> parse_range(std::string_view text);

/// What a network interface may be called.
bool is_interface_name(std::string_view text);

}  // namespace hookline::loader
