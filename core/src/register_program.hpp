// SPDX-License-Identifier: Apache-2.0
//
// Register programs: the rules they are held to, and an interpreter for software models. The kernel module
// holds real devices' programs to the same rules and runs them itself.
//
// Thread rule: that of the DeviceAccess. Errors: Result; the text names program and step.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <hookline/plugin.h>
#include <hookline/device_access.hpp>
#include <hookline/result.hpp>

namespace hookline {

/// EINVAL for steps the kernel would refuse. `bar_sizes` (six, or none if the device is not known yet) bounds
/// offsets.
Result<void> check_program(std::string_view name, std::span<const hookline_step> steps, bool may_wait,
                           std::span<const uint64_t> bar_sizes = {});

/// Runs the steps in order and stops at the first that fails; ETIMEDOUT from a POLL. `bar_sizes`: all six.
Result<void> run_program(std::string_view name, std::span<const hookline_step> steps, DeviceAccess& device,
                         std::span<const uint64_t> bar_sizes, std::span<uint32_t, HOOKLINE_SAVED> saved);

}  // namespace hookline
