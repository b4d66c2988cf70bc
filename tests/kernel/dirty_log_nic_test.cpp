// SPDX-License-Identifier: Apache-2.0
//
// Precise DMA logging of an 82576 VF against an oracle: guest memory is compared before and after, and what the device has
// changed must have been reported. How much more is reported is printed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <set>
#include <thread>

#include "tests/kernel/fixture.hpp"
#include "tests/kernel/kernel_module.hpp"
#include "tests/support/icmp_peer.hpp"
#include "tests/support/vf_driver.hpp"
#include "tests/support/vfio_nic.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;
using testing::Host;
using testing::VfDriver;
using PageSet = std::set<uint64_t>;  // pages of guest memory, from its beginning

constexpr const char* kLogger = "82576-dirty-log";
constexpr Host kSelf{{0x02, 0x48, 0x4b, 0x00, 0x00, 0x17}, 0x0a000234};
constexpr uint32_t kGateway = 0x0a000202;

constexpr uint32_t kBaseLow = 0x2800, kBaseHigh = 0x2804, kLength = 0x2808, kSrrctl = 0x280c, kHead = 0x2810, kTail = 0x2818,
                   kControl = 0x2828, kTxControl = 0x3828, kTxTail = 0x3818, kEnable = 1u << 25;

// Guest memory: the driver's, then RX rings, then buffers that no processor writes to.
constexpr uint64_t kIova = 0x10000000, kMemory = 8 << 20, kRings = 1 << 20, kPool = 2 << 20;
constexpr uint32_t kBuffer = 2048;

constexpr uint64_t kPoolPage = kPool / kPage;

vfio_pci_hooks_step step(uint8_t op, uint32_t offset, uint8_t slot = 0, uint32_t mask = 0) {
  return {.op = op, .bar = 0, .width = 4, .slot = slot, .offset = offset, .mask = mask, .value = 0, .timeout_us = 0};
}

Definition nic(const std::string& address) {
  Definition definition;
  definition.address = address;
  definition.flags = VFIO_PCI_HOOKS_DEFINE_MIGRATION;
  definition.handlers = {kLogger, VFIO_PCI_HOOKS_CHANNEL_NAME};
  definition.stop = {step(VFIO_PCI_HOOKS_STEP_SAVE, kControl, 0), step(VFIO_PCI_HOOKS_STEP_SAVE, kTxControl, 1),
                     step(VFIO_PCI_HOOKS_STEP_MODIFY, kControl, 0, kEnable), step(VFIO_PCI_HOOKS_STEP_MODIFY, kTxControl, 0, kEnable)};
  definition.start = {step(VFIO_PCI_HOOKS_STEP_RESTORE, kControl, 0), step(VFIO_PCI_HOOKS_STEP_MODIFY, kTail),
                      step(VFIO_PCI_HOOKS_STEP_RESTORE, kTxControl, 1), step(VFIO_PCI_HOOKS_STEP_MODIFY, kTxTail)};
  return definition;
}

/// The RX half of a driver whose buffers are always others.
class Receiver {
 public:
  Receiver(testing::BarPort& bar, std::span<std::byte> memory, std::mt19937& random)
      : bar_(bar), memory_(memory), random_(random) {
    for (uint64_t at = kPool; at + kBuffer <= memory.size(); at += kBuffer) free_.push_back(at);
  }

  /// Disables the queue, and enables it with an empty ring somewhere else.
  void set_up(uint64_t ring, uint32_t slots) {
    bar_.write32(kControl, 0);
    ring_ = ring;
    slots_ = slots;
    next_ = 0;
    buffer_.assign(slots, 0);
    bar_.write32(kBaseLow, static_cast<uint32_t>(kIova + ring));
    bar_.write32(kBaseHigh, 0);
    bar_.write32(kLength, slots * 16);
    bar_.write32(kSrrctl, 0x82000000u | kBuffer >> 10);
    bar_.write32(kHead, 0);
    bar_.write32(kTail, 0);
    std::memset(memory_.data() + ring, 0, slots * 16);
    bar_.write32(kControl, kEnable | 1u << 16 | 8u << 8 | 16u);
    for (uint32_t i = 0; i + 1 < slots; ++i) give(i);
    ring_doorbell(slots - 1);
  }

  /// Takes what has come, and gives the device other buffers.
  uint32_t take() {
    uint32_t taken = 0;
    for (;; ++taken) {
      volatile uint32_t* d = descriptor(next_);
      if (!(d[2] & 1)) break;
      std::atomic_thread_fence(std::memory_order_acquire);
      if (buffer_[next_]) free_.push_back(buffer_[next_]);
      give((next_ + slots_ - 1) % slots_);
      next_ = (next_ + 1) % slots_;
    }
    if (taken) ring_doorbell((next_ + slots_ - 1) % slots_);
    return taken;
  }

  uint64_t ring_page() const { return ring_ / kPage; }
  uint32_t slots() const { return slots_; }

 private:
  volatile uint32_t* descriptor(uint32_t index) {
    return reinterpret_cast<volatile uint32_t*>(memory_.data() + ring_ + index * 16);
  }
  void give(uint32_t index) {
    std::swap(free_[random_() % free_.size()], free_.back());
    buffer_[index] = free_.back();
    free_.pop_back();
    volatile uint32_t* d = descriptor(index);
    d[0] = static_cast<uint32_t>(kIova + buffer_[index]);
    for (const int word : {1, 2, 3}) d[word] = 0;
  }
  void ring_doorbell(uint32_t tail) {
    std::atomic_thread_fence(std::memory_order_release);
    bar_.write32(kTail, tail);
  }

  testing::BarPort& bar_;
  std::span<std::byte> memory_;
  std::mt19937& random_;
  std::vector<uint64_t> free_, buffer_;
  uint64_t ring_ = 0;
  uint32_t slots_ = 0, next_ = 0;
};

class DirtyLogNicTest : public HooksTest {
 protected:
  void SetUp() override {
    HooksTest::SetUp();
    module_.emplace("handlers/vfio_pci_hooks_82576.ko", "vfio_pci_hooks_82576");
    define_and_bind(nic(vf_));
    auto memory = vfio::Memory::create(kMemory);
    ASSERT_TRUE(memory);
    memory_.emplace(std::move(*memory));
    guest_.emplace(*container_, vf_);
    const auto mapped = container_->map_dma(kIova, memory_->bytes());
    ASSERT_TRUE(mapped) << mapped.error().text;
  }
  void TearDown() override {
    receiver_.reset();
    driver_.reset();
    bar_.reset();
    guest_.reset();
    memory_.reset();
    HooksTest::TearDown();
    module_.reset();
  }

  void bring_up(uint32_t slots) {
    bar_.emplace(guest_->device);
    bar_->enable();
    driver_.emplace(VfDriver::init(*bar_, {memory_->bytes(), kIova}, {.mac = kSelf.mac}));
    for (int i = 0; i < 20 && !gateway_; ++i) {
      driver_->send(testing::arp_request(kSelf, kGateway));
      for (int tries = 0; tries < 100 && !gateway_; ++tries, std::this_thread::sleep_for(2ms))
        if (const auto frame = driver_->receive()) gateway_ = testing::parse_arp_reply(frame->bytes);
    }
    ASSERT_TRUE(gateway_) << "nobody answers";
    receiver_.emplace(*bar_, memory_->bytes(), random_);
    receiver_->set_up(kRings, slots);
  }

  /// So many echoes, one after the other: afterwards nothing is under way.
  void echoes(uint32_t number) {
    for (; number; --number) {
      driver_->reap();
      ASSERT_TRUE(driver_->send(testing::echo_request(kSelf, *gateway_, 1, sequence_++, 56 + random_() % 1200)));
      const auto end = std::chrono::steady_clock::now() + 5s;
      while (!receiver_->take()) {
        ASSERT_LT(std::chrono::steady_clock::now(), end) << "no answer";
        std::this_thread::yield();
      }
    }
  }

  int start() {
    vfio_device_feature_dma_logging_range range{kIova, kMemory};
    vfio_device_feature_dma_logging_control control{};
    control.page_size = kPage;
    control.num_ranges = 1;
    control.ranges = reinterpret_cast<uintptr_t>(&range);
    return feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, std::as_writable_bytes(std::span(&control, 1)));
  }
  int stop() { return feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, {}); }
  /// Of all memory, in pieces as a VMM asks by its sections.
  int report(PageSet& pages, uint64_t piece = 3 << 20) {
    for (uint64_t at = 0; at < kMemory; at += piece) {
      const uint64_t length = std::min(piece, kMemory - at);
      std::vector<uint64_t> bitmap(length / kPage / 64 + 1);
      vfio_device_feature_dma_logging_report report{};
      report.iova = kIova + at;
      report.length = length;
      report.page_size = kPage;
      report.bitmap = reinterpret_cast<uintptr_t>(bitmap.data());
      const int error = feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
                                std::as_writable_bytes(std::span(&report, 1)));
      if (error) return error;
      for (uint64_t page = 0; page < length / kPage; ++page)
        if (bitmap[page / 64] >> page % 64 & 1) pages.insert(at / kPage + page);
    }
    return 0;
  }
  PageSet report() {
    PageSet pages;
    EXPECT_EQ(report(pages), 0);
    return pages;
  }
  int feature(uint32_t flags, std::span<std::byte> payload) {
    const auto done = guest_->device.feature(flags, payload);
    return done ? 0 : done.error().code;
  }

  std::vector<std::byte> copy() const { return {memory_->bytes().begin(), memory_->bytes().end()}; }
  /// Pages of the buffers that differ: no processor writes there.
  PageSet changed(const std::vector<std::byte>& before) const {
    PageSet pages;
    for (uint64_t page = kPoolPage; page < kMemory / kPage; ++page)
      if (std::memcmp(before.data() + page * kPage, memory_->bytes().data() + page * kPage, kPage) != 0) pages.insert(page);
    return pages;
  }
  void expect_reported(const PageSet& changed, const PageSet& reported) {
    for (const uint64_t page : changed) EXPECT_TRUE(reported.contains(page)) << "page " << page << " was missed";
    changed_ += changed.size();
    reported_ += reported.size();
  }
  void print_over_report(const char* what) const {
    printf("%s: %zu pages changed, %zu reported\n", what, changed_, reported_);
  }

  std::optional<KernelModule> module_;
  std::mt19937 random_{82576};
  std::optional<vfio::Memory> memory_;
  std::optional<Guest> guest_;
  std::optional<testing::VfioNic> bar_;
  std::optional<VfDriver> driver_;
  std::optional<Receiver> receiver_;
  std::optional<Host> gateway_;
  uint16_t sequence_ = 0;
  size_t changed_ = 0, reported_ = 0;
};

TEST_F(DirtyLogNicTest, MP5_EveryPageTheDeviceWroteInAnInterval) {
  bring_up(64);
  ASSERT_EQ(start(), 0);
  // None, few, and more than the ring has: it wraps.
  for (const uint32_t frames : {0u, 1u, 7u, 40u, 150u, 0u, 1u, 64u}) {
    SCOPED_TRACE(frames);
    const auto before = copy();
    ASSERT_NO_FATAL_FAILURE(echoes(frames));
    const PageSet pages = changed(before), reported = report();
    EXPECT_GE(pages.size(), std::min(frames, 1u));
    expect_reported(pages, reported);
    EXPECT_TRUE(reported.contains(receiver_->ring_page()));
    // At most what was written or is posted (a buffer each), and the rings: nothing is told for ever.
    EXPECT_LE(reported.size(), frames + receiver_->slots() + 4);
  }
  // The last one comes when the device is stopped.
  const auto before = copy();
  ASSERT_NO_FATAL_FAILURE(echoes(20));
  ASSERT_TRUE(guest_->device.set_state(VFIO_DEVICE_STATE_STOP));
  expect_reported(changed(before), report());
  EXPECT_EQ(stop(), 0);
  PageSet none;
  EXPECT_EQ(report(none), EINVAL);
  print_over_report("intervals");
}

TEST_F(DirtyLogNicTest, MP5_WhatWasPostedBeforeStart) {
  bring_up(64);
  ASSERT_NO_FATAL_FAILURE(echoes(70));
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(start(), 0);
    const auto before = copy();
    ASSERT_NO_FATAL_FAILURE(echoes(30));
    expect_reported(changed(before), report());
    ASSERT_EQ(stop(), 0);
    ASSERT_NO_FATAL_FAILURE(echoes(30));
  }
}

TEST_F(DirtyLogNicTest, MP5_QueuesThatAreSetUpAnew) {
  bring_up(64);
  ASSERT_EQ(start(), 0);
  for (int round = 0; round < 6; ++round) {
    SCOPED_TRACE(round);
    const auto before = copy();
    ASSERT_NO_FATAL_FAILURE(echoes(10 + random_() % 20));
    receiver_->set_up(kRings + (1 + random_() % 20) * 2 * kPage, 8u << random_() % 5);
    if (round % 2) {
      ASSERT_NO_FATAL_FAILURE(echoes(20));
    }
    expect_reported(changed(before), report());
    const auto between = copy();
    ASSERT_NO_FATAL_FAILURE(echoes(12));
    expect_reported(changed(between), report());
  }
  print_over_report("new rings");
}

TEST_F(DirtyLogNicTest, MP5_OverAResetOfTheDevice) {
  bring_up(64);
  ASSERT_EQ(start(), 0);
  for (int round = 0; round < 3; ++round) {
    const auto before = copy();
    ASSERT_NO_FATAL_FAILURE(echoes(10));
    ASSERT_TRUE(guest_->device.reset());
    bring_up(32);
    ASSERT_NO_FATAL_FAILURE(echoes(10));
    expect_reported(changed(before), report());
  }
}

TEST_F(DirtyLogNicTest, MP5_OverAStopThatIsCancelled) {
  bring_up(64);
  ASSERT_EQ(start(), 0);
  for (int round = 0; round < 4; ++round) {
    const auto before = copy();
    ASSERT_NO_FATAL_FAILURE(echoes(10));
    ASSERT_TRUE(guest_->device.set_state(VFIO_DEVICE_STATE_STOP));
    PageSet reported = report();
    ASSERT_TRUE(guest_->device.set_state(VFIO_DEVICE_STATE_RUNNING));
    expect_reported(changed(before), reported);
    const auto after = copy();
    ASSERT_NO_FATAL_FAILURE(echoes(10));
    reported = report();
    expect_reported(changed(after), reported);
    EXPECT_LT(reported.size(), 200u) << "precise, also after it";
  }
}

// A migration: all memory once, then what is reported, while traffic goes on; then what is reported after the stop.
TEST_F(DirtyLogNicTest, MP5_AMigrationUnderTraffic) {
  bring_up(64);
  std::atomic<bool> over{false};
  std::atomic<uint32_t> frames{0};
  std::thread traffic([&] {
    while (!over) {
      driver_->reap();
      ++sequence_;
      driver_->send(testing::echo_request(kSelf, *gateway_, 1, sequence_, 56 + sequence_ % 1200));
      frames += receiver_->take();
    }
  });
  ASSERT_EQ(start(), 0);
  std::vector<std::byte> there = copy();
  size_t total = 0;
  const auto move = [&](const PageSet& pages) {
    for (const uint64_t page : pages)
      std::memcpy(there.data() + page * kPage, memory_->bytes().data() + page * kPage, kPage);
    total += pages.size();
  };
  int rounds = 0;
  const uint32_t first = frames;
  uint32_t told = first;
  const auto end = std::chrono::steady_clock::now() + 60s;
  while ((frames - first < 1500 || rounds < 300) && std::chrono::steady_clock::now() < end) {
    told = frames;
    move(report());
    ++rounds;
  }
  EXPECT_GE(frames - first, 200u);
  // The traffic goes on until the device is stopped.
  const auto stopped = guest_->device.set_state(VFIO_DEVICE_STATE_STOP);
  over = true;
  traffic.join();
  ASSERT_TRUE(stopped) << stopped.error().text;
  const PageSet last = report();
  move(last);
  EXPECT_EQ(changed(there), PageSet{}) << "pages that the destination has not got";
  printf("migration: %u frames, %d rounds, %.1f pages each, %zu after the stop\n", frames - first, rounds,
         static_cast<double>(total) / rounds, last.size());
  // Those of frames that came since, of frames nobody has taken yet, of buffers that are posted, and the rings.
  EXPECT_LE(last.size(), frames - told + 2 * receiver_->slots() + 4);
}

// What cannot be followed is not guessed: all pages, until the VMM starts again.
TEST_F(DirtyLogNicTest, MP5_ARingThatCannotBeRead) {
  bring_up(64);
  ASSERT_EQ(start(), 0);
  report();
  EXPECT_LT(report().size(), 200u);
  bar_->write32(kControl, 0);
  bar_->write32(kBaseHigh, 0x77);
  EXPECT_LT(report().size(), 200u) << "disabled, it may lie anywhere";
  bar_->write32(kControl, kEnable);
  EXPECT_EQ(report().size(), kMemory / kPage);
  EXPECT_EQ(report().size(), kMemory / kPage);
  bar_->write32(kControl, 0);
  receiver_->set_up(kRings, 64);
  EXPECT_EQ(report().size(), kMemory / kPage);
  ASSERT_EQ(stop(), 0);
  ASSERT_EQ(start(), 0);
  report();
  EXPECT_LT(report().size(), 200u);
}

TEST_F(DirtyLogNicTest, MP5_DoorbellsOfAHostileGuest) {
  bring_up(64);
  ASSERT_EQ(start(), 0);
  const uint32_t registers[] = {kBaseLow, kBaseHigh, kLength, kSrrctl, kHead, kTail};
  const uint32_t odd[] = {0, 1, 63, 64, 128, 0xffff, 0xfff80, ~0u, kEnable, static_cast<uint32_t>(kIova)};
  for (int i = 0; i < 300; ++i) {
    bar_->write32(registers[random_() % std::size(registers)], odd[random_() % std::size(odd)]);
    for (const uint32_t unit : {1u, 2u, 8u}) {
      std::vector<std::byte> bytes(unit, std::byte(random_()));
      (void)guest_->device.write(VFIO_PCI_BAR0_REGION_INDEX, 0x2800 + random_() % 0x28 / unit * unit, bytes);
    }
    if (i % 10 == 0) report();
  }
  bar_->write32(kControl, 0);
}

TEST_F(DirtyLogNicTest, MP5_InEveryState) {
  ASSERT_EQ(start(), 0);
  for (const uint32_t state : {VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_STOP_COPY,
                               VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_RESUMING}) {
    SCOPED_TRACE(state);
    const auto reached = guest_->device.set_state(state);
    ASSERT_TRUE(reached) << reached.error().text;
    EXPECT_EQ(start(), EINVAL);
    report();
    EXPECT_EQ(stop(), 0);
    EXPECT_EQ(stop(), 0);
    PageSet none;
    EXPECT_EQ(report(none), EINVAL);
    EXPECT_EQ(start(), 0);
    report();
  }
  ASSERT_TRUE(guest_->device.reset());
  EXPECT_EQ(start(), EINVAL);
  EXPECT_EQ(report().size(), kMemory / kPage) << "a worker may have set the device up";
}

TEST_F(DirtyLogNicTest, MP5_DoorbellsOfAStoppedDevice) {
  bring_up(64);
  ASSERT_EQ(start(), 0);
  ASSERT_TRUE(guest_->device.set_state(VFIO_DEVICE_STATE_STOP));
  bar_->write32(kTail, bar_->read32(kTail));
  ASSERT_TRUE(guest_->device.set_state(VFIO_DEVICE_STATE_RUNNING));
  EXPECT_EQ(report().size(), kMemory / kPage) << "what the start program has let the device write to, nobody has read";
}

TEST_F(DirtyLogNicTest, MP5_OnlyPagesOfDoorbellsAreTrapped) {
  bring_up(64);
  for (const uint32_t page : {0u, 1u}) EXPECT_TRUE(bar_->is_mapped(page * 4096)) << page;
  for (const uint32_t page : {2u, 3u}) EXPECT_FALSE(bar_->is_mapped(page * 4096)) << page;
}

// Printed, not judged: what trapping and logging cost, beside an untrapped register by system call and in a mapping.
TEST_F(DirtyLogNicTest, MP5_WhatADoorbellCosts) {
  constexpr uint32_t kThrottle = 0x1680;
  bring_up(64);
  // Long enough for a clock that ticks every few milliseconds.
  const auto mean = [&](auto write) {
    const auto begin = std::chrono::steady_clock::now();
    std::chrono::duration<double, std::micro> passed{};
    int number = 0;
    for (; passed < 400ms; passed = std::chrono::steady_clock::now() - begin, number += 100)
      for (int i = 0; i < 100; ++i) write();
    return passed.count() / number;
  };
  const auto call = [&](uint32_t at, uint32_t value) {
    return mean([&, at, value] { (void)guest_->device.write<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, at, value); });
  };
  const uint32_t rx = bar_->read32(kTail), tx = bar_->read32(kTxTail);
  const double mapped = mean([&] { bar_->write32(kThrottle, 488); });
  const double untrapped = call(kThrottle, 488), idle_rx = call(kTail, rx), idle_tx = call(kTxTail, tx);
  ASSERT_EQ(start(), 0);
  const double rx_logged = call(kTail, rx), tx_logged = call(kTxTail, tx);
  printf("doorbell: mapped %.2f us, untrapped by system call %.2f us, trapped RX %.2f us TX %.2f us, logged RX %.2f us TX %.2f us\n",
         mapped, untrapped, idle_rx, idle_tx, rx_logged, tx_logged);
  EXPECT_EQ(bar_->read32(kTail), rx);
}

class LoggersTest : public HooksTest {
 protected:
  void SetUp() override {
    HooksTest::SetUp();
    module_.emplace("handlers/vfio_pci_hooks_82576.ko", "vfio_pci_hooks_82576");
  }
  void TearDown() override {
    HooksTest::TearDown();
    module_.reset();
  }
  std::optional<KernelModule> module_;
};

TEST_F(LoggersTest, MP5_AtMostOneLogger) {
  Definition two = nic(vf_);
  two.handlers = {kLogger, VFIO_PCI_HOOKS_CHANNEL_NAME, kLogger};
  EXPECT_EQ(control_.define(two), EINVAL);
  Definition one = nic(vf_);
  EXPECT_EQ(control_.define(one), 0);
}

TEST_F(LoggersTest, MP5_NoLoggerBehindTheWorker) {
  Definition definition = nic(vf_);
  definition.handlers = {VFIO_PCI_HOOKS_CHANNEL_NAME, kLogger};
  EXPECT_EQ(control_.define(definition), EINVAL);
}

TEST_F(LoggersTest, MP5_NoLoggerWithoutMigration) {
  Definition definition = nic(vf_);
  definition.flags = 0;
  EXPECT_EQ(control_.define(definition), EINVAL);
  definition.handlers = {kLogger};
  definition.shadow_size = 0;
  EXPECT_EQ(control_.define(definition), EINVAL);
}

}  // namespace
}  // namespace hookline::kernel_test
