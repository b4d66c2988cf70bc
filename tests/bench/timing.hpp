// SPDX-License-Identifier: Apache-2.0
//
// Timing of one operation on a fixed CPU, and rounds in which everything that is compared takes turns.
//
// One thread. Errors: std::system_error where a process cannot be pinned.
//
//     pin(0, kFirstCpu);
//     interleave(21, {[&] { a.push_back(ns_per_operation(effort, load)); }, [&] { b.push_back(...); }});
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <random>
#include <system_error>
#include <vector>

#include "tests/bench/statistics.hpp"

namespace hookline::bench {

inline constexpr int kFirstCpu = 0, kSecondCpu = 1;

/// `pid` 0: the calling thread.
inline void pin(pid_t pid, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (::sched_setaffinity(pid, sizeof set, &set) != 0)
    throw std::system_error(errno, std::generic_category(),
                            "pinning a process to CPU " + std::to_string(cpu));
}

/// On all of them again.
inline void unpin(pid_t pid) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &set);
  if (::sched_setaffinity(pid, sizeof set, &set) != 0)
    throw std::system_error(errno, std::generic_category(), "letting a process run everywhere");
}

/// A sample is the mean of `batch` operations: reading the clock costs as much as a fast one.
struct Effort {
  int samples = 100;  ///< at most
  int batch = 8;
  std::chrono::milliseconds limit{100};  ///< no sample begins later, but the first five
};

/// For what takes long: no second sample, and nothing before it.
template <typename Operation>
double ns_once(Operation&& operation) {
  const auto begin = std::chrono::steady_clock::now();
  operation();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
}

/// The mean of as many as fit into that time: also where the clock ticks in milliseconds.
template <typename Operation>
double ns_over(std::chrono::milliseconds least, Operation&& operation) {
  operation();  // caches, page tables, translations
  int64_t times = 0;
  const auto begin = std::chrono::steady_clock::now();
  std::chrono::duration<double, std::nano> passed{};
  for (; passed < least; passed = std::chrono::steady_clock::now() - begin, ++times) operation();
  return passed.count() / static_cast<double>(times);
}

/// The median of the samples, so that what the host does meanwhile to a few of them does not count.
template <typename Operation>
double ns_per_operation(const Effort& effort, Operation&& operation) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < effort.batch; ++i) operation();  // caches, page tables, translations
  std::vector<double> samples;
  const auto end = Clock::now() + effort.limit;
  for (int sample = 0; sample < effort.samples; ++sample) {
    const auto begin = Clock::now();
    if (sample >= 5 && begin > end) break;
    for (int i = 0; i < effort.batch; ++i) operation();
    samples.push_back(std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / effort.batch);
  }
  return spread(std::move(samples)).median;
}

/// Everything once a round, in an order drawn anew each round: what drifts, drifts for all.
inline void interleave(int rounds, std::vector<std::function<void()>> turns) {
  std::mt19937 random(82576);
  for (int round = 0; round < rounds; ++round) {
    std::ranges::shuffle(turns, random);
    for (const auto& turn : turns) turn();
  }
}

}  // namespace hookline::bench
