// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <barrier>
#include <deque>
#include <exception>
#include <functional>
#include <span>
#include <thread>

#include <fmt/format.h>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/ping_pong.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/bench/state_plugin.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

constexpr const char* kPlacement = "any CPU";
constexpr size_t kMost = 16;

// Nanoseconds an operation took of all, where `count` threads do it at the same time.
double at_once(size_t count, int times, const std::function<void(size_t)>& operation) {
  std::barrier begin(static_cast<std::ptrdiff_t>(count) + 1), end(static_cast<std::ptrdiff_t>(count) + 1);
  std::vector<std::exception_ptr> failures(count);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      begin.arrive_and_wait();
      try {
        for (int n = 0; n < times; ++n) operation(i);
      } catch (...) {
        failures[i] = std::current_exception();
      }
      end.arrive_and_wait();
    });
  const double ns = ns_once([&] {
    begin.arrive_and_wait();
    end.arrive_and_wait();
  });
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
  return ns / static_cast<double>(count) / times;
}

std::string devices(size_t count) {
  return fmt::format("{} {} at once", count, count == 1 ? "device" : "devices");
}

}  // namespace

Figures many_devices(const std::vector<std::string>& all, const Plan& plan) {
  unpin(0);
  const std::span vfs = std::span(all).first(std::min(all.size(), kMost));
  std::deque<ServedDevice> served;
  std::deque<EventfdPeer> peers;
  for (const std::string& vf : vfs) {
    served.emplace_back(vf, state_chain(0, ranges_of(TrappedPages::first)));
    peers.emplace_back();
  }
  auto container = must(vfio::Container::create());
  std::deque<vfio::Device> opened;
  for (const std::string& vf : vfs) {
    opened.push_back(must(vfio::Device::open(container, vf)));
    must(opened.back().enable_memory_and_dma());
  }

  std::vector<size_t> counts;
  for (size_t count = 1; count < vfs.size(); count *= 2) counts.push_back(count);
  counts.push_back(vfs.size());
  struct Times {
    std::vector<double> reads, pairs, arcs;
  };
  std::deque<Times> times(counts.size());
  const int operations = plan.effort.samples;
  std::vector<std::function<void()>> turns;
  for (size_t n = 0; n < counts.size(); ++n) {
    const size_t count = counts[n];
    Times& t = times[n];
    turns.push_back([&, count] {
      t.reads.push_back(
          at_once(count, operations, [&](size_t i) { must(opened[i].read<uint32_t>(0, kPassedRegister)); }));
    });
    turns.push_back([&, count] {
      t.pairs.push_back(at_once(count, operations, [&](size_t i) { peers[i].round_trip(); }));
    });
    turns.push_back([&, count] {
      t.arcs.push_back(at_once(count, operations, [&](size_t i) {
        must(opened[i].set_state(VFIO_DEVICE_STATE_STOP));
        must(opened[i].set_state(VFIO_DEVICE_STATE_RUNNING));
      }));
    });
  }
  interleave(plan.rounds, turns);

  Figures figures;
  for (size_t n = 0; n < counts.size(); ++n)
    figures.ratios.push_back({fmt::format("trapped read, {}", devices(counts[n])),
                              fmt::format("eventfd round trip, {} at once", counts[n]), kPlacement,
                              times[n].reads, times[n].pairs});
  for (size_t n = 1; n < counts.size(); ++n)
    figures.ratios.push_back({fmt::format("trapped read, {}", devices(counts[n])),
                              "trapped read, 1 device at once", kPlacement, times[n].reads, times[0].reads});
  for (size_t n = 1; n < counts.size(); ++n)
    figures.ratios.push_back({fmt::format("RUNNING, STOP, RUNNING, {}", devices(counts[n])),
                              "RUNNING, STOP, RUNNING, 1 device at once", kPlacement, times[n].arcs,
                              times[0].arcs});
  return figures;
}

}  // namespace hookline::bench
