// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include <fmt/format.h>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/ping_pong.hpp"
#include "tests/bench/placement.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

constexpr uint32_t kBar = 0;
constexpr uint32_t kEims = 0x1524, kInterruptPage = 0x1000, kPage = 0x1000;

uint32_t read32(const vfio::Device& device, uint32_t offset) {
  return must(device.read<uint32_t>(kBar, offset));
}

void expect_answer(uint32_t value) {
  if (value != kAnswer)
    throw std::runtime_error(fmt::format("a handler answered {:#x}, expected {:#x}", value, kAnswer));
}

}  // namespace

Figures trapped_reads(const std::string& vf, const Plan& plan) {
  const ServedDevice served(vf, chain_for(TrappedPages::first));
  EventfdPeer peer;
  auto container = must(vfio::Container::create());
  auto device = must(vfio::Device::open(container, vf));
  must(device.enable_memory_and_dma());
  pin(0, kFirstCpu);

  uint64_t trapped = 0;
  Figures figures;
  for (const Placement& placement : kPlacements) {
    pin(peer.pid(), placement.peer_cpu);
    pin(served.worker(), placement.peer_cpu);
    std::vector<double> eventfd, answered, passed;
    interleave(plan.rounds,
               {
                   [&] { eventfd.push_back(ns_per_operation(plan.effort, [&] { peer.round_trip(); })); },
                   [&] {
                     answered.push_back(ns_per_operation(plan.effort, [&] {
                       expect_answer(read32(device, kAnsweredRegister));
                       ++trapped;
                     }));
                   },
                   [&] {
                     passed.push_back(ns_per_operation(plan.effort, [&] {
                       read32(device, kPassedRegister);
                       ++trapped;
                     }));
                   },
               });
    figures.ratios.push_back({"trapped read, worker answers", kEventfd, placement.name, answered, eventfd});
    figures.ratios.push_back(
        {"trapped read, worker passes it on", kEventfd, placement.name, passed, eventfd});
  }
  served.expect_accesses(trapped);
  return figures;
}

Figures interrupt_mask_writes(const std::string& vf, const std::string& other_vf, const Plan& plan) {
  const ServedDevice mapped_page(vf, chain_for(TrappedPages::first)),
      trapped_page(other_vf, chain_for(TrappedPages::first_two));
  EventfdPeer peer;
  auto container = must(vfio::Container::create());
  auto mapped = must(vfio::Device::open(container, vf));
  auto trapped = must(vfio::Device::open(container, other_vf));
  must(mapped.enable_memory_and_dma());
  must(trapped.enable_memory_and_dma());
  const auto page = must(mapped.map(kBar, kInterruptPage, kPage));
  volatile uint32_t& eims = page.word(kEims - kInterruptPage);
  pin(0, kFirstCpu);

  uint64_t writes = 0;
  Figures figures;
  for (const Placement& placement : kPlacements) {
    pin(peer.pid(), placement.peer_cpu);
    pin(trapped_page.worker(), placement.peer_cpu);
    std::vector<double> eventfd, direct, mediated;
    // No bit is set: the write is the same, and no vector changes.
    interleave(plan.rounds,
               {
                   [&] { eventfd.push_back(ns_per_operation(plan.effort, [&] { peer.round_trip(); })); },
                   [&] { direct.push_back(ns_per_operation(plan.effort, [&] { eims = 0; })); },
                   [&] {
                     mediated.push_back(ns_per_operation(plan.effort, [&] {
                       must(trapped.write<uint32_t>(kBar, kEims, 0));
                       ++writes;
                     }));
                   },
               });
    figures.ratios.push_back({"EIMS write, page 1 trapped", kEventfd, placement.name, mediated, eventfd});
    figures.ratios.push_back(
        {"EIMS write, page 1 trapped", "EIMS write, page 1 mapped", placement.name, mediated, direct});
  }
  trapped_page.expect_accesses(writes);
  mapped_page.expect_accesses(0);
  return figures;
}

Figures in_kernel_reads(const std::string& vf, const Plan& plan) {
  constexpr uint32_t kSampleRegister = 0x40, kNeighbour = 0x44;
  const std::string knobs = "/sys/kernel/debug/vfio_pci_hooks_sample/sample-a/";
  const DefinedDevice defined(vf, chain_for(TrappedPages::none), {"sample-a"});
  EventfdPeer peer;
  auto container = must(vfio::Container::create());
  auto device = must(vfio::Device::open(container, vf));
  must(device.enable_memory_and_dma());
  must(sysfs::write(knobs + "value", fmt::format("{:#x}", kAnswer)));
  pin(0, kFirstCpu);
  pin(peer.pid(), kFirstCpu);

  std::vector<double> eventfd, answered, passed, untrapped;
  interleave(
      plan.rounds,
      {
          [&] { eventfd.push_back(ns_per_operation(plan.effort, [&] { peer.round_trip(); })); },
          [&] {
            must(sysfs::write(knobs + "read", "0"));
            answered.push_back(
                ns_per_operation(plan.effort, [&] { expect_answer(read32(device, kSampleRegister)); }));
          },
          [&] {
            must(sysfs::write(knobs + "read", "1"));
            passed.push_back(ns_per_operation(plan.effort, [&] { read32(device, kSampleRegister); }));
          },
          [&] { untrapped.push_back(ns_per_operation(plan.effort, [&] { read32(device, kNeighbour); })); },
      });
  return {{{"read, in-kernel handler answers", kEventfd, "same CPU", answered, eventfd},
           {"read, in-kernel handler answers", "read beside its range", "one CPU", answered, untrapped},
           {"read, in-kernel handler passes it on", "read beside its range", "one CPU", passed, untrapped}},
          {}};
}

}  // namespace hookline::bench
