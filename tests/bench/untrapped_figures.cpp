// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

constexpr uint32_t kBar = 0;
// Never one of the trapped page 0. Writing no bit to EIMS changes no vector.
constexpr uint32_t kRxHead = 0x2810, kRingPage = 0x2000, kEims = 0x1524, kInterruptPage = 0x1000,
                   kPage = 0x1000;

enum Way { read_call, write_call, load, store, kWays };
constexpr std::array<const char*, kWays> kNames = {"read", "write", "load", "store"};
using Times = std::array<std::vector<double>, kWays>;

// A fresh open: what a driver prepares for its device is measured, too.
void measure(const std::string& vf, const Effort& effort, Times& times) {
  auto container = must(vfio::Container::create());
  auto device = must(vfio::Device::open(container, vf));
  must(device.enable_memory_and_dma());
  const auto rings = must(device.map(kBar, kRingPage, kPage));
  const auto interrupts = must(device.map(kBar, kInterruptPage, kPage));
  volatile uint32_t& head = rings.word(kRxHead - kRingPage);
  volatile uint32_t& eims = interrupts.word(kEims - kInterruptPage);
  const auto take = [&](Way way, auto operation) {
    times[way].push_back(ns_per_operation(effort, operation));
  };
  take(read_call, [&] { must(device.read<uint32_t>(kBar, kRxHead)); });
  take(write_call, [&] { must(device.write<uint32_t>(kBar, kEims, 0)); });
  take(load, [&] { [[maybe_unused]] const uint32_t value = head; });
  take(store, [&] { eims = 0; });
}

}  // namespace

Figures untrapped_accesses(const std::string& vf, const Plan& plan) {
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
                                const DefinedDevice defined(vf, chain_for(TrappedPages::first));
                                measure(vf, plan.effort, trapping);
                              },
                          });
  Figures figures;
  for (size_t way = 0; way < kWays; ++way) {
    const std::string name = kNames[way], anchor = name + ", stock vfio-pci";
    figures.ratios.push_back(
        {name + ", vfio-pci-hooks, no definition", anchor, "one CPU", undefined[way], stock[way]});
    figures.ratios.push_back(
        {name + ", vfio-pci-hooks, page 0 trapped", anchor, "one CPU", trapping[way], stock[way]});
  }
  return figures;
}

}  // namespace hookline::bench
