// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <optional>

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

// An RX queue of an 82576 VF and the descriptors that a driver has posted there.
constexpr uint32_t kQueue = 0x2800, kRingLow = kQueue, kRingHigh = kQueue + 4, kRingLength = kQueue + 8, kSrrctl = kQueue + 0xc,
                   kHead = kQueue + 0x10, kTail = kQueue + 0x18, kControl = kQueue + 0x28;
constexpr uint64_t kIova = 0x10000000;
constexpr uint32_t kSlots = 4096, kDescriptor = 16, kRing = kSlots * kDescriptor;

/// A function whose DMA is logged, as its VMM has it.
class LoggedDevice {
 public:
  explicit LoggedDevice(const std::string& vf)
      : container_(must(vfio::Container::create())), device_(must(vfio::Device::open(container_, vf))) {}

  bool can_log() const {
    return device_
        .feature(VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, {})
        .has_value();
  }
  void start() {
    vfio_device_feature_dma_logging_range range{.iova = 0, .length = kMemory};
    vfio_device_feature_dma_logging_control control{};
    control.page_size = kPage;
    control.num_ranges = 1;
    control.ranges = reinterpret_cast<uintptr_t>(&range);
    must(device_.feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, payload(control)));
  }
  void report() {
    vfio_device_feature_dma_logging_report asked{};
    asked.iova = 0;
    asked.length = kMemory;
    asked.page_size = kPage;
    asked.bitmap = reinterpret_cast<uintptr_t>(bitmap_.data());
    must(device_.feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, payload(asked)));
  }
  /// Pages of the next report.
  uint64_t count() {
    std::ranges::fill(bitmap_, 0);
    report();
    uint64_t pages = 0;
    for (const uint64_t word : bitmap_) pages += static_cast<uint64_t>(std::popcount(word));
    return pages;
  }

  /// Memory of the guest with a ring, and a buffer in a page of its own for each slot.
  void set_up() {
    must(device_.enable_memory_and_dma());
    must(container_.map_dma(kIova, memory_.bytes()));
  }
  /// The queue begins anew, with so many buffers.
  void post(uint32_t buffers) {
    std::memset(memory_.bytes().data(), 0, kRing);
    for (uint32_t i = 0; i < buffers; ++i) {
      const uint64_t buffer = kIova + kRing + i * kPage;
      std::memcpy(memory_.bytes().data() + i * kDescriptor, &buffer, sizeof buffer);
    }
    write(kControl, 0);
    write(kRingLow, kIova), write(kRingHigh, 0), write(kRingLength, kRing), write(kSrrctl, 0x82000002);
    write(kHead, 0), write(kTail, 0);
    write(kControl, 1u << 25);
    write(kTail, buffers);
  }

 private:
  void write(uint32_t offset, uint32_t value) { must(device_.write<uint32_t>(0, offset, value)); }

  vfio::Memory memory_ = must(vfio::Memory::create(kRing + kSlots * kPage));
  vfio::Container container_;
  vfio::Device device_;
  std::vector<uint64_t> bitmap_ = std::vector<uint64_t>(kPages / 64);
};

}  // namespace

Figures dirty_pages(const std::string& vf, const std::string& followed_vf, const Plan& plan) {
  const ServedDevice served(vf, state_chain(0));
  std::optional<LoggedDevice> plain(std::in_place, vf);
  if (!plain->can_log()) {
    fmt::print(stderr, "bench: the vfio of this kernel has no DMA logging: not measured\n");
    return {};
  }
  // Its worker is forked: no device of a VMM's is open then.
  plain.reset();
  const ServedDevice followed(followed_vf, state_chain(0), Worker::waits, {"82576-dirty-log", VFIO_PCI_HOOKS_CHANNEL_NAME});
  plain.emplace(vf);
  LoggedDevice precise(followed_vf);
  pin(0, kFirstCpu);

  plain->start();
  // Of a device whose writes nobody knows, every page is reported: the most that a report can be.
  if (plain->count() != kPages) throw std::runtime_error("a page is missing in the report");
  precise.set_up();
  precise.start();
  // What is posted may be written, and so it is reported each time, with the ring itself.
  const auto begin = [&](uint32_t buffers) {
    precise.post(buffers);
    (void)precise.count();  // of the queue before
    const uint64_t pages = precise.count();
    if (pages < buffers || pages > buffers + kRing / kPage + 4)
      throw std::runtime_error(fmt::format("{} pages are reported of a ring with {} buffers", pages, buffers));
  };

  constexpr std::chrono::milliseconds kTurn{300};
  std::vector<uint64_t> other(kPages / 64);
  std::vector<double> every, idle, full, set;
  interleave(plan.rounds, {
                              [&] { every.push_back(ns_over(kTurn, [&] { plain->report(); })); },
                              [&] { begin(0), idle.push_back(ns_over(kTurn, [&] { precise.report(); })); },
                              [&] { begin(kSlots - 1), full.push_back(ns_over(kTurn, [&] { precise.report(); })); },
                              [&] {
                                set.push_back(ns_over(kTurn, [&] {
                                  std::memset(other.data(), 0xff, other.size() * sizeof other[0]);
                                  asm volatile("" : : "r"(other.data()) : "memory");
                                }));
                              },
                          });
  constexpr const char* kAnchor = "memset of that bitmap";
  return {{{"REPORT of 64 GiB, every page", kAnchor, "one CPU", every, set},
           {"REPORT of 64 GiB, rings followed, nothing posted", kAnchor, "one CPU", idle, set},
           {"REPORT of 64 GiB, rings followed, 4095 buffers posted", kAnchor, "one CPU", full, set}},
          {}};
}

}  // namespace hookline::bench
