// SPDX-License-Identifier: Apache-2.0
//
// The keys of a descriptor's JSON that this release understands. Any thread.
#pragma once

#include <algorithm>
#include <string_view>

namespace hookline {

inline constexpr std::string_view kDescriptorSchema = "hookline/migration-info/1";

inline constexpr std::string_view kDescriptorKeys[] = {"schema",     "model",    "plugin", "emits",    "reads",  "capabilities",
                                                       "parameters", "sections", "config", "required"};

inline bool is_known_key(std::string_view key) {
  return std::ranges::find(kDescriptorKeys, key) != std::end(kDescriptorKeys);
}

}  // namespace hookline
