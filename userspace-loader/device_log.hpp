// SPDX-License-Identifier: Apache-2.0
//
// The log of one device's supervisor or worker: lines on stderr that open with the address. The journal adds time and
// level itself, so there they are left out.
//
// Thread-safe, as spdlog is. No errors.
//
//     auto log = device_log("0000:01:10.0", globals.verbosity);
//     log->info("worker {} serves", pid);
#pragma once

#include <memory>
#include <string>

#include <spdlog/logger.h>

namespace hookline::loader {

std::shared_ptr<spdlog::logger> device_log(const std::string& address, int verbosity);

}  // namespace hookline::loader
