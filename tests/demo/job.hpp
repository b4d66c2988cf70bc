// SPDX-License-Identifier: Apache-2.0
//
// The demo's job, written once: traffic on the source, migration under it, traffic on the destination.
//
// Thread rule: one thread. Errors: std::runtime_error where the job cannot go on; what went wrong without ending it stands in
// Report::problems.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/demo/side.hpp"
#include "tests/demo/traffic.hpp"

namespace hookline::demo {

struct Options {
  uint64_t packets = 400;  ///< before and again after; a quarter of it during PRE_COPY
  std::chrono::milliseconds spacing{5};
};

struct Phase {
  std::string name;
  double ms = 0;
  uint64_t bytes = 0;
  bool in_stop = false;  ///< the guest stands still
};

struct Report {
  std::string source, destination;
  std::optional<std::string> kernel, pf_driver;
  std::vector<Phase> phases;
  Counts before, during, after;
  uint64_t stream_bytes = 0;
  uint64_t source_interrupts = 0, destination_interrupts = 0;
  std::vector<std::string> problems;

  bool ok() const { return problems.empty(); }
  double stop_ms() const;
};

/// Told as often as the job makes progress.
struct Progress {
  std::string activity;
  std::string device;
  uint64_t sent, answered, interrupts;
};

Report run_job(Stage& stage, const Options& options, const std::function<void(const Progress&)>& progress);

}  // namespace hookline::demo
