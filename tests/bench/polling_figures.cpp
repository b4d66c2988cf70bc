// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/ping_pong.hpp"
#include "tests/bench/placement.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/bench/spin_peer.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

constexpr const char* kSpin = "shared-memory round trip, both spin";

}  // namespace

// On one CPU a worker that polls keeps the client from running, so there is one placement only.
Figures polled_reads(const std::string& vf, const Plan& plan) {
  const std::string knobs = "/sys/kernel/debug/vfio_pci_hooks_sample/sample-a/";
  const char* place = kCrossCpu.name;
  std::vector<double> spin, eventfd, polled, floor;
  // Who spins answers at once while both processes run, and after a time slice while the host lets one of
  // them wait. So many samples that most of them are of the former kind.
  Effort effort = plan.effort;
  effort.samples *= 100;
  effort.limit *= 3;
  // The worker would take a CPU from what it is compared with: each takes its turn alone.
  const auto alone = [&](pid_t pid, std::vector<double>& times, auto operation) {
    pin(pid, kCrossCpu.peer_cpu);
    times.push_back(ns_per_operation(effort, operation));
  };
  pin(0, kFirstCpu);
  interleave(plan.rounds,
             {
                 [&] {
                   SpinPeer peer;
                   alone(peer.pid(), spin, [&] { peer.round_trip(); });
                 },
                 [&] {
                   EventfdPeer peer;
                   alone(peer.pid(), eventfd, [&] { peer.round_trip(); });
                 },
                 [&] {
                   const ServedDevice served(vf, chain_for(TrappedPages::first), Worker::polls);
                   auto container = must(vfio::Container::create());
                   auto device = must(vfio::Device::open(container, vf));
                   must(device.enable_memory_and_dma());
                   uint64_t reads = 0;
                   alone(served.worker(), polled, [&] {
                     must(device.read<uint32_t>(0, kAnsweredRegister));
                     ++reads;
                   });
                   served.expect_accesses(reads);
                 },
                 [&] {
                   const DefinedDevice defined(vf, chain_for(TrappedPages::none), {"sample-a"});
                   auto container = must(vfio::Container::create());
                   auto device = must(vfio::Device::open(container, vf));
                   must(device.enable_memory_and_dma());
                   must(sysfs::write(knobs + "read", "0"));
                   floor.push_back(ns_per_operation(effort, [&] { must(device.read<uint32_t>(0, 0x40)); }));
                   must(sysfs::write(knobs + "read", "1"));
                 },
             });
  // Each turn's read without a worker beside the same turn's with one.
  std::vector<double> added;
  for (size_t i = 0; i < polled.size(); ++i) added.push_back(std::max(polled[i] - floor[i], 0.0));
  return {{{"trapped read, worker polls", kSpin, place, polled, spin},
           {"what the polling worker adds to a read", kSpin, place, added, spin},
           {"read, answered by nobody but the kernel", kSpin, "one CPU", floor, spin},
           {"trapped read, worker polls", kEventfd, place, polled, eventfd}},
          {}};
}

}  // namespace hookline::bench
