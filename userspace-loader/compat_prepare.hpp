// SPDX-License-Identifier: Apache-2.0
//
// Gives a destination the parameters its source has: each is written exactly once, or the device is as it was.
//
// One thread. Errors: that of the write that failed, with what to do, and what could not be taken back.
//
//     auto write = [&](const ParameterValue& p) { return sysfs.set_migration_value(address, p.name, p.value); };
//     if (auto ok = write_parameters(wanted, present, write); !ok) return ok;
#pragma once

#include <functional>
#include <vector>

#include <hookline/compatibility.hpp>
#include <hookline/result.hpp>

namespace hookline::loader {

using ParameterWrite = std::function<Result<void>(const ParameterValue& parameter)>;

/// `before`: the same parameters in the same order, with the values to go back to.
Result<void> write_parameters(const std::vector<ParameterValue>& wanted, const std::vector<ParameterValue>& before,
                              const ParameterWrite& write);

}  // namespace hookline::loader
