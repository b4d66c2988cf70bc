// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstring>

#include <fmt/format.h>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/bench/state_plugin.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

constexpr uint64_t kMemory = UINT64_C(64) << 30, kPage = 4096, kPages = kMemory / kPage;

template <typename T>
std::span<std::byte> payload(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

}  // namespace

Figures dirty_pages(const std::string& vf, const Plan& plan) {
  const ServedDevice served(vf, state_chain(0));
  auto container = must(vfio::Container::create());
  auto device = must(vfio::Device::open(container, vf));
  if (!device.feature(
          VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, {})) {
    fmt::print(stderr, "bench: the vfio of this kernel has no DMA logging: not measured\n");
    return {};
  }
  pin(0, kFirstCpu);

  vfio_device_feature_dma_logging_range range{.iova = 0, .length = kMemory};
  vfio_device_feature_dma_logging_control control{};
  control.page_size = kPage;
  control.num_ranges = 1;
  control.ranges = reinterpret_cast<uintptr_t>(&range);
  must(device.feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, payload(control)));

  std::vector<uint64_t> bitmap(kPages / 64), other(kPages / 64);
  const auto report = [&] {
    vfio_device_feature_dma_logging_report asked{};
    asked.iova = range.iova;
    asked.length = range.length;
    asked.page_size = kPage;
    asked.bitmap = reinterpret_cast<uintptr_t>(bitmap.data());
    must(device.feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, payload(asked)));
  };
  // Of a device whose writes nobody knows, every page is reported: the most that a report can be.
  report();
  for (const uint64_t word : bitmap)
    if (word != ~UINT64_C(0)) throw std::runtime_error("a page is missing in the report");

  constexpr std::chrono::milliseconds kTurn{300};
  std::vector<double> reported, set;
  interleave(plan.rounds, {
                              [&] { reported.push_back(ns_over(kTurn, report)); },
                              [&] {
                                set.push_back(ns_over(kTurn, [&] {
                                  std::memset(other.data(), 0xff, other.size() * sizeof other[0]);
                                  asm volatile("" : : "r"(other.data()) : "memory");
                                }));
                              },
                          });
  return {{{"REPORT of 64 GiB, every page", "memset of that bitmap", "one CPU", reported, set}}, {}};
}

}  // namespace hookline::bench
