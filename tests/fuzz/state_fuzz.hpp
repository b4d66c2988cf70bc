// SPDX-License-Identifier: Apache-2.0
//
// What the targets share that load a state into a software device.
//
// Thread rule: one thread. Errors: require() ends the target with its name and the reason.
#pragma once

#include <errno.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include <hookline/software_device.hpp>

namespace hookline::fuzz {

inline void require(bool holds, const char* what, const std::string& why = {}) {
  if (holds) return;
  std::fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why.c_str());
  std::abort();
}
inline void require(const Result<void>& result, const char* what) {
  require(result.has_value(), what, result ? "" : result.error().text);
}

/// As a VMM does at the destination.
inline Result<void> load(SoftwareDevice& device, std::span<const std::byte> stream) {
  require(device.set_state(MigrationState::resuming), "RESUMING");
  if (const Result<void> ok = device.write_state(stream); !ok) return ok;
  return device.set_state(MigrationState::running);
}

}  // namespace hookline::fuzz
