// SPDX-License-Identifier: Apache-2.0
#include "tests/kernel/faults_logging.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace hookline::kernel_test {
namespace {

constexpr uint64_t kPage = 4096, kGiB = 1 << 30, kEnd = ~uint64_t{0} - 4095;

// The first RX queue of a VF: one descriptor less than it has slots is posted.
constexpr uint32_t kBaseLow = 0x2800, kBaseHigh = 0x2804, kLength = 0x2808, kSrrctl = 0x280c, kHead = 0x2810, kTail = 0x2818,
                   kControl = 0x2828, kEnable = 1u << 25, kSlots = 8;
constexpr uint64_t buffer_at(uint32_t slot) { return kDmaIova + 65536 + slot * 2 * kPage; }

int ask(const vfio::Device& device, uint32_t what, std::span<std::byte> payload = {}) {
  const auto done = device.feature(what, payload);
  return done ? 0 : done.error().code;
}

}  // namespace

std::set<uint64_t> posted_pages() {
  std::set<uint64_t> pages = {kDmaIova};
  for (uint32_t slot = 0; slot + 1 < kSlots; ++slot) pages.insert(buffer_at(slot));
  return pages;
}

void post_buffers(const vfio::Device& device, std::span<std::byte> memory) {
  const auto write = [&](uint32_t at, uint32_t value) {
    const auto done = device.write<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, at, value);
    if (!done) throw std::runtime_error(done.error().text);
  };
  write(kControl, 0);
  std::memset(memory.data(), 0, kSlots * 16);
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    const uint64_t buffer = buffer_at(slot);
    std::memcpy(memory.data() + slot * 16, &buffer, sizeof buffer);
  }
  write(kBaseLow, static_cast<uint32_t>(kDmaIova));
  write(kBaseHigh, 0);
  write(kLength, kSlots * 16);
  write(kSrrctl, 0x82000000u | 2);
  write(kHead, 0);
  write(kTail, 0);
  write(kControl, kEnable | 1u << 16 | 8u << 8 | 16u);
  write(kTail, kSlots - 1);
}

int start_logging(const vfio::Device& device, std::vector<LogRange> ranges) {
  vfio_device_feature_dma_logging_control control{};
  control.page_size = kPage;
  control.num_ranges = static_cast<uint32_t>(ranges.size());
  control.ranges = reinterpret_cast<uintptr_t>(ranges.data());
  return ask(device, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
             std::as_writable_bytes(std::span(&control, 1)));
}

int stop_logging(const vfio::Device& device) {
  return ask(device, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP);
}

int report_logging(const vfio::Device& device, uint64_t iova, uint64_t length, std::set<uint64_t>& pages) {
  std::vector<uint64_t> bitmap(kGiB / kPage / 64);
  vfio_device_feature_dma_logging_report asked{};
  asked.iova = iova;
  asked.length = length;
  asked.page_size = kPage;
  asked.bitmap = reinterpret_cast<uintptr_t>(bitmap.data());
  const int error = ask(device, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
                        std::as_writable_bytes(std::span(&asked, 1)));
  for (uint64_t page = 0; page < 64 * bitmap.size(); ++page)
    if (bitmap[page / 64] >> page % 64 & 1) pages.insert(iova + page * kPage);
  return error;
}

void log_dma(const vfio::Device& device, bool precise) {
  std::set<uint64_t> pages;
  const auto report = [&](uint64_t iova, uint64_t length) {
    pages.clear();
    return report_logging(device, iova, length, pages);
  };
  const auto start = [&](std::vector<LogRange> ranges) { return start_logging(device, std::move(ranges)); };
  const auto expect_pages = [&] {
    if (precise) {
      EXPECT_TRUE(std::ranges::includes(pages, posted_pages())) << "a page was missed";
      std::set<uint64_t> ring = posted_pages();
      ring.insert(buffer_at(kSlots - 1));  // in a descriptor, and not announced
      EXPECT_TRUE(std::ranges::includes(ring, pages)) << pages.size() << " pages";
    } else {
      EXPECT_EQ(pages.size(), kGiB / kPage) << "nobody knows which";
    }
  };

  const uint32_t probe = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
  if (ask(device, probe) != 0) {
    EXPECT_FALSE(precise) << "the kernel cannot report";
    EXPECT_EQ(start({{0, kGiB}}), ENOTTY);
    EXPECT_EQ(report(0, kGiB), ENOTTY);
    EXPECT_EQ(stop_logging(device), ENOTTY);
    return;
  }
  EXPECT_EQ(report(0, kGiB), EINVAL) << "before START";
  EXPECT_EQ(stop_logging(device), 0) << "before START";
  EXPECT_EQ(start({}), EINVAL);
  EXPECT_EQ(start({{0, 8192}, {4096, 8192}}), EINVAL) << "overlapping";
  EXPECT_EQ(start({{4096, 0}}), EINVAL) << "empty";
  EXPECT_EQ(start({{kEnd, 8192}}), EOVERFLOW);
  EXPECT_EQ(report(0, kGiB), EINVAL) << "none of them was started";
  EXPECT_EQ(start({{0, uint64_t{1} << 52}}), 0) << "huge";
  EXPECT_EQ(start({{0, 4096}}), EINVAL) << "twice";
  EXPECT_EQ(report(0, kGiB), 0);
  expect_pages();
  EXPECT_EQ(report(0, kGiB), 0);
  expect_pages();
  EXPECT_EQ(report(kGiB, 0), EINVAL);
  EXPECT_EQ(report(kEnd, 8192), EOVERFLOW);
  EXPECT_EQ(report(kEnd - kGiB, kGiB), 0) << "outside of what was started";
  EXPECT_EQ(stop_logging(device), 0);
  EXPECT_EQ(report(0, kGiB), EINVAL) << "after STOP";
  EXPECT_EQ(start({{0, kGiB}}), 0);
  EXPECT_EQ(report(0, kGiB), 0);
  expect_pages();
  EXPECT_EQ(stop_logging(device), 0);
}

void expect_logging(const vfio::Device& device) {
  EXPECT_EQ(start_logging(device, {{kDmaIova, kDmaSize}}), EINVAL) << "it was over";
  std::set<uint64_t> pages;
  EXPECT_EQ(report_logging(device, kDmaIova, kDmaSize, pages), 0);
  for (const uint64_t page : posted_pages()) EXPECT_TRUE(pages.contains(page)) << fmt::format("{:#x}", page);
  EXPECT_EQ(stop_logging(device), 0);
  EXPECT_EQ(report_logging(device, kDmaIova, kDmaSize, pages), EINVAL);
}

void expect_no_logging(const vfio::Device& device) {
  std::set<uint64_t> pages;
  EXPECT_EQ(report_logging(device, kDmaIova, kDmaSize, pages), EINVAL) << "the open before this one is told";
  EXPECT_EQ(start_logging(device, {{kDmaIova, kDmaSize}}), 0);
  EXPECT_EQ(stop_logging(device), 0);
}

}  // namespace hookline::kernel_test
