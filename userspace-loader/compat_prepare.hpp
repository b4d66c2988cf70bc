// SPDX-License-Identifier: Apache-2.0
//
// Gives a destination the parameters its source has: each is written exactly once, or the device is as it was.
//
// One thread. Errors: that of the write that failed, with what to do, and what could not be taken back.
//
//     const Described<Judged> prepared = prepare(source, address, host);
//     if (prepared && prepared->verdict.answer != Answered::yes) fmt::print("{}", verdict_text("source.json", *prepared));
#pragma once

#include <functional>
#include <vector>

#include <hookline/compatibility.hpp>
#include <hookline/result.hpp>

#include "compat_report.hpp"
#include "compat_side.hpp"

namespace hookline::loader {

using ParameterWrite = std::function<Result<void>(const ParameterValue& parameter)>;

/// `before`: the same parameters in the same order, with the values to go back to. SIGINT, SIGTERM and SIGHUP wait until
/// it is done.
Result<void> write_parameters(const std::vector<ParameterValue>& wanted, const std::vector<ParameterValue>& before,
                              const ParameterWrite& write);

/// Under the host's lock: judges the device, and only with yes writes. A device that is open, or may be, is left alone: a
/// parameter that can change meanwhile belongs to its guest. Errors: nothing has changed, or the text says what has.
Described<Judged> prepare(const Descriptor& source, const PciAddress& dest, const CompatHost& host);

}  // namespace hookline::loader
