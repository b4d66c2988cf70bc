// SPDX-License-Identifier: Apache-2.0
//
// Whether what a plugin says about itself makes sense: names, texts, identities, registers, options. What links of a chain
// must be to each other is core's (hookline/chain.hpp); here is what only people and configuration files see.
//
// Thread rule: pure functions; every pointer of the plugin object must be good. Errors: EINVAL with the plugin's name, what
// is wrong and what would be right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "hookline/plugin.h"
#include "hookline/result.hpp"

namespace hookline::loader {

Result<void> check_declaration(const hookline_plugin& plugin);

/// [a-z0-9][a-z0-9-]*, at most 31 bytes: no name leads out of a folder.
bool is_plugin_name(std::string_view name);
/// a-z, 0-9, - and _, as long as the kernel has room for.
bool is_handler_name(std::string_view name);

/// "a|b|c" as a list.
std::vector<std::string> split_choices(const char* choices);

/// "8086:10ca, 8086:1520"; empty: every device.
std::string device_ids(const hookline_plugin& plugin);

}  // namespace hookline::loader
