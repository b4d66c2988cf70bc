// SPDX-License-Identifier: Apache-2.0
//
// What is measured on a function of an 82576. Each takes the function it may rebind as it likes and leaves it
// without a driver.
//
// One thread. Errors: std::runtime_error, also where something else was measured than was meant.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/report.hpp"
#include "tests/bench/timing.hpp"

namespace hookline::bench {

struct Plan {
  int rounds;
  Effort effort;
};

/// A read that a worker answers or passes on, against an eventfd round trip with the same placement.
std::vector<Comparison> trapped_reads(const std::string& vf, const Plan& plan);

/// The write with which a driver ends each interrupt (EIMS, in page 1): trapped, against the mapped one.
std::vector<Comparison> interrupt_mask_writes(const std::string& vf, const std::string& other_vf,
                                              const Plan& plan);

/// A read that an in-kernel handler answers or passes on. Needs the sample handlers' module and debugfs.
std::vector<Comparison> in_kernel_reads(const std::string& vf, const Plan& plan);

/// Reads and loads of a page that is not trapped, against stock vfio-pci: without a definition, and with page
/// 0 trapped.
std::vector<Comparison> untrapped_reads(const std::string& vf, const Plan& plan);

}  // namespace hookline::bench
