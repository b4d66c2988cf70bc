// SPDX-License-Identifier: Apache-2.0
//
// A plugin that only sees accesses: what a chain costs, and nothing a plugin would do.
//
// Pure function. `name`, `ranges` and the function stay valid as long as the plugin is used.
#pragma once

#include <span>

#include <hookline/plugin.h>

namespace hookline::bench {

using AccessFunction = int (*)(void* self, hookline_access* access);

inline hookline_plugin small_plugin(const char* name, std::span<const hookline_range> ranges,
                                    AccessFunction access) {
  hookline_plugin plugin{};
  plugin.abi = {HOOKLINE_ABI_MAGIC, HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR, sizeof plugin, 0, 0};
  plugin.name = name;
  plugin.version = "1";
  plugin.summary = "for measurements";
  plugin.ranges = ranges.data();
  plugin.nr_ranges = static_cast<uint32_t>(ranges.size());
  plugin.ops_known = HOOKLINE_OPS_KNOWN;
  plugin.unknown_op = HOOKLINE_UNKNOWN_PASS;
  plugin.open = [](const hookline_host*, hookline_device*, const hookline_info*, const hookline_value*,
                   void**) { return 0; };
  plugin.close = [](void*) {};
  plugin.access = access;
  return plugin;
}

}  // namespace hookline::bench
