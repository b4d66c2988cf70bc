// SPDX-License-Identifier: Apache-2.0
//
// The process that runs plugins: gives up its rights, loads the chain, serves one open of the device after the other.
//
// Plugins run on one thread; another answers what is asked by the device's migration_version, and runs no code of theirs.
// No code of a plugin runs before the rights are gone. Errors: exit codes (supervisor.hpp) and the log.
//
//     return run_worker(record, Channel(FileDescriptor(kChannelFd)), SupervisorPort(...), log);
#pragma once

#include <memory>

#include <spdlog/logger.h>

#include "device_record.hpp"
#include "worker_link.hpp"

namespace hookline::loader {

int run_worker(const AppliedDevice& device, Channel channel, SupervisorPort supervisor, std::shared_ptr<spdlog::logger> log);

}  // namespace hookline::loader
