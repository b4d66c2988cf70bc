// SPDX-License-Identifier: Apache-2.0
//
// DMA logging as the fault matrix asks for it: the three calls, with all that a VMM may get wrong about them, and a VF with
// buffers posted for the device to write to.
//
// Thread rule: one thread. Errors: calls return errno; checks are GoogleTest failures.
#pragma once

#include <set>
#include <vector>

#include "tests/support/vfio_device.hpp"

namespace hookline::kernel_test {

/// Guest memory of the logging NIC, and the pages of it (IOVA) that the device may write to.
inline constexpr uint64_t kDmaIova = 0x10000000, kDmaSize = 1 << 20;
std::set<uint64_t> posted_pages();
/// The guest's driver sets up an RX queue with buffers.
void post_buffers(const vfio::Device& device, std::span<std::byte> memory);

using LogRange = vfio_device_feature_dma_logging_range;
int start_logging(const vfio::Device& device, std::vector<LogRange> ranges);
int stop_logging(const vfio::Device& device);
/// Adds to `pages`, IOVA.
int report_logging(const vfio::Device& device, uint64_t iova, uint64_t length, std::set<uint64_t>& pages);

/// START, REPORT and STOP, right and wrong. `precise`: no page is reported that is not in a ring, else each.
void log_dma(const vfio::Device& device, bool precise);
/// Logging goes on: all posted pages are told. Stops it.
void expect_logging(const vfio::Device& device);
/// Nobody logs: it can be started.
void expect_no_logging(const vfio::Device& device);

}  // namespace hookline::kernel_test
