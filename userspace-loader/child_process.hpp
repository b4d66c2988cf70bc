// SPDX-License-Identifier: Apache-2.0
//
// Starting other programs, with nothing inherited but what is named here: no descriptor, no blocked signal.
//
// Any thread. Errors: Result, the errno of starting; how a program ended is its status.
//
//     auto pid = spawn({"/proc/self/exe", "run", address}, {.log = log, .new_session = true});
//     auto status = run_and_wait({"modprobe", "vfio-pci-hooks"});   // 0: it succeeded
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "hookline/result.hpp"

namespace hookline::loader {

struct SpawnOptions {
  std::string output{};                      ///< file that stdout and stderr are appended to; empty: as ours
  std::vector<std::pair<int, int>> descriptors{};  ///< ours, and the number it has there
  bool new_session = false;
};

/// Looked up in PATH. stdin is /dev/null.
Result<pid_t> spawn(const std::vector<std::string>& arguments, const SpawnOptions& options = {});

/// Exit status, or 128 plus the signal. The program's output goes to our stderr, or nowhere.
Result<int> run_and_wait(const std::vector<std::string>& arguments, bool quiet = false);

/// "exit status 1", "signal 9 (Killed)"
std::string describe_end(int wait_status);

}  // namespace hookline::loader
