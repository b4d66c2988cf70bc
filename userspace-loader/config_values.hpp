// SPDX-License-Identifier: Apache-2.0
//
// Single values of a configuration, as people write them. Pure functions; nullopt: it is none.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

namespace hookline::loader {

/// Decimal without leading zeros (010 is 8 to some and 10 to others), or 0x and hexadecimal digits.
std::optional<uint64_t> parse_number(std::string_view text);

/// true or false, nothing else.
std::optional<bool> parse_bool(std::string_view text);

/// A whole number and its unit: "100ms", "10s".
std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);

/// "3" or "0-3": first and last.
std::optional<std::pair<uint64_t, uint64_t>> parse_range(std::string_view text);

/// What a network interface may be called.
bool is_interface_name(std::string_view text);

}  // namespace hookline::loader
