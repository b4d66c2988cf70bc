// SPDX-License-Identifier: Apache-2.0
#include <optional>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

constexpr uint32_t kBar = 0;
constexpr uint32_t kRxHead = 0x2810, kRingPage = 0x2000, kPage = 0x1000;

struct Times {
  std::vector<double> read, load;
};

// A fresh open: what a driver prepares for its device is measured, too.
void measure(const std::string& vf, const Effort& effort, Times& times) {
  auto container = must(vfio::Container::create());
  auto device = must(vfio::Device::open(container, vf));
  must(device.enable_memory_and_dma());
  const auto page = must(device.map(kBar, kRingPage, kPage));
  volatile uint32_t& head = page.word(kRxHead - kRingPage);
  times.read.push_back(ns_per_operation(effort, [&] { must(device.read<uint32_t>(kBar, kRxHead)); }));
  times.load.push_back(ns_per_operation(effort, [&] { [[maybe_unused]] const uint32_t value = head; }));
}

}  // namespace

std::vector<Comparison> untrapped_reads(const std::string& vf, const Plan& plan) {
  pin(0, kFirstCpu);
  // The same function each time: two are never quite alike.
  Times stock, undefined, trapping;
  interleave(plan.rounds, {
                              [&] {
                                must(sysfs::bind(vf, "vfio-pci"));
                                measure(vf, plan.effort, stock);
                                must(sysfs::release(vf));
                              },
                              [&] {
                                must(sysfs::bind(vf, "vfio-pci-hooks"));
                                measure(vf, plan.effort, undefined);
                                must(sysfs::release(vf));
                              },
                              [&] {
                                const DefinedDevice defined(vf, TrappedPages::first);
                                measure(vf, plan.effort, trapping);
                              },
                          });
  const std::string place = "one CPU", read = "read of page 2, stock vfio-pci",
                    load = "load of page 2, stock vfio-pci";
  return {{"read, vfio-pci-hooks, no definition", read, place, undefined.read, stock.read},
          {"read, vfio-pci-hooks, page 0 trapped", read, place, trapping.read, stock.read},
          {"load, vfio-pci-hooks, no definition", load, place, undefined.load, stock.load},
          {"load, vfio-pci-hooks, page 0 trapped", load, place, trapping.load, stock.load}};
}

}  // namespace hookline::bench
