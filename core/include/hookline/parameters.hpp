// SPDX-License-Identifier: Apache-2.0
//
// Migration parameters as a plugin declares them: which values are allowed, and whether a declaration makes
// sense.
//
// The rule for values exists a second time in the kernel module, which checks what is written to sysfs by
// itself; test-vectors/allowed_values.csv holds both to the same answers. Pure functions, any thread. Errors:
// Result, with a text that says what is wrong and what would be right.
//
//     if (!is_allowed("off|1-8", "4")) ...
//     if (const auto ok = check_parameters(plugin); !ok) return ok;
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include <hookline/plugin.h>
#include <hookline/result.hpp>

namespace hookline {

inline constexpr size_t kMaxParameterName = 31;
inline constexpr size_t kMaxParameterValue = 63;

/// [a-z][a-z0-9_]*, at most 31 bytes, not "model".
bool is_parameter_name(std::string_view name);
/// 1 to 63 printable ASCII characters without blank and '|'.
bool is_parameter_value(std::string_view value);

/// "a|b|c" as a list; the items are parts of `list`. An empty text has no item.
std::vector<std::string_view> split_values(std::string_view list);

/// Whether one of the items is this value, or a range LOW-HIGH of decimal numbers that holds it. Numbers
/// have any length and no leading zero; anything else is text that stands for itself.
bool is_allowed(std::string_view allowed_values, std::string_view value);

/// Parameters and readable versions of a plugin object whose pointers are good. EINVAL.
Result<void> check_parameters(const hookline_plugin& plugin);

}  // namespace hookline
