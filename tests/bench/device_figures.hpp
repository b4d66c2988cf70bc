// SPDX-License-Identifier: Apache-2.0
//
// What is measured on functions of an 82576. Each takes the functions that it is given, may rebind them as it
// likes and leaves them without a driver.
//
// One thread. Errors: std::runtime_error, also where something else was measured than was meant.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/report.hpp"
#include "tests/bench/timing.hpp"

namespace hookline::bench {

struct Plan {
  int rounds;
  Effort effort;
  uint64_t most_state;  ///< bytes of the largest device state that is moved
};

/// A read that a worker answers or passes on, against an eventfd round trip with the same placement.
Figures trapped_reads(const std::string& vf, const Plan& plan);

/// The same where the worker polls, against two processes that spin on shared memory.
Figures polled_reads(const std::string& vf, const Plan& plan);

/// The write with which a driver ends each interrupt (EIMS, in page 1): trapped, against the mapped one.
Figures interrupt_mask_writes(const std::string& vf, const std::string& other_vf, const Plan& plan);

/// A read that an in-kernel handler answers or passes on. Needs the sample handlers' module and debugfs.
Figures in_kernel_reads(const std::string& vf, const Plan& plan);

/// Reads, writes, loads and stores in pages that are not trapped, against stock vfio-pci: without a
/// definition, and with another page trapped.
Figures untrapped_accesses(const std::string& vf, const Plan& plan);

/// State changes of an empty plugin, against those of a chain whose only handler is in the kernel, and how
/// often a worker is asked. Needs the sample handlers' module and tracefs.
Figures state_changes(const std::string& vf, const std::string& other_vf, const Plan& plan);

/// What a VMM asks in each round of a migration, against an ioctl that does nothing.
Figures size_questions(const std::string& vf, const Plan& plan);

/// The data file, read and written in pieces, against a pipe and memcpy: with the library's worker, and with
/// one that has nothing to do.
Figures data_file(const std::string& vf, const std::string& other_vf, const Plan& plan);

/// From the device's stop to the start of the other one, by size of the state, against the same bytes from a
/// pipe.
Figures downtime(const std::string& vf, const std::string& other_vf, const Plan& plan);

/// Trapped reads and state changes of 1 to 16 devices at once, as far as there are as many, against pairs of
/// processes and one device.
Figures many_devices(const std::vector<std::string>& all, const Plan& plan);

/// A report of the pages of 64 GiB, against setting their bits: of a device nobody follows, and of one whose rings the in-kernel
/// handler follows. Needs a kernel whose vfio knows DMA logging.
Figures dirty_pages(const std::string& vf, const std::string& followed_vf, const Plan& plan);

}  // namespace hookline::bench
