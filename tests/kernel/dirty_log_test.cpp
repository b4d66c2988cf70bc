// SPDX-License-Identifier: Apache-2.0
//
// DMA logging, on a kernel that has it: whatever is asked for is dirty, and requests that make no sense are refused.
#include <algorithm>
#include <bit>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

constexpr uint64_t kKiB = 1024, kGiB = uint64_t{1} << 30;

using Range = vfio_device_feature_dma_logging_range;

int code(const Result<void>& done) { return done ? 0 : done.error().code; }

struct Logged {
  explicit Logged(const vfio::Container& container, const std::string& address) : guest(container, address) {}

  int start(std::vector<Range> ranges, uint64_t page_size = 4 * kKiB) {
    vfio_device_feature_dma_logging_control control{};
    control.page_size = page_size;
    control.num_ranges = static_cast<uint32_t>(ranges.size());
    control.ranges = reinterpret_cast<uintptr_t>(ranges.data());
    const int error = code(guest.device.feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
                                                std::as_writable_bytes(std::span(&control, 1))));
    granted_page_size = control.page_size;
    return error;
  }
  int stop() {
    return code(guest.device.feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, {}));
  }
  int report(Range range, uint64_t page_size, std::vector<uint64_t>& bitmap) {
    vfio_device_feature_dma_logging_report report{};
    report.iova = range.iova;
    report.length = range.length;
    report.page_size = page_size;
    report.bitmap = reinterpret_cast<uintptr_t>(bitmap.data());
    return code(guest.device.feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
                                     std::as_writable_bytes(std::span(&report, 1))));
  }
  int report(Range range) {
    std::vector<uint64_t> bitmap(range.length / (4 * kKiB) / 64 + 1);
    return report(range, 4 * kKiB, bitmap);
  }

  Guest guest;
  uint64_t granted_page_size = 0;
};

class DirtyLogTest : public HooksTest {
 protected:
  void SetUp() override {
    HooksTest::SetUp();
    Definition definition = migratable(vf_);
    define_and_bind(definition);
    log_.emplace(*container_, vf_);
  }
  void TearDown() override {
    log_.reset();
    HooksTest::TearDown();
  }
  // Every page of the range is reported, and no bit beyond the range is touched.
  void expect_all_dirty(Range range, uint64_t page_size) {
    SCOPED_TRACE(::testing::Message() << std::hex << range.iova << " + " << range.length << " by " << page_size);
    const uint64_t pages = (range.length + page_size - 1) / page_size;
    std::vector<uint64_t> bitmap(pages / 64 + 2);
    ASSERT_EQ(log_->report(range, page_size, bitmap), 0);
    uint64_t set = 0;
    for (uint64_t word : bitmap) set += static_cast<uint64_t>(std::popcount(word));
    EXPECT_EQ(set, pages);
    for (uint64_t page = 0; page < pages; ++page)
      ASSERT_TRUE(bitmap[page / 64] >> (page % 64) & 1) << "page " << page << " of " << pages;
  }

  std::optional<Logged> log_;
};

TEST_F(DirtyLogTest, MP5_IsAdvertised) {
  for (const uint32_t feature : {VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
                                 VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
                                 VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT})
    EXPECT_EQ(code(log_->guest.device.feature(VFIO_DEVICE_FEATURE_PROBE | feature, {})), 0) << feature;
}

TEST_F(DirtyLogTest, MP5_OnlyOfADeviceThatMigrates) {
  log_.reset();
  ASSERT_TRUE(sysfs::release(vf_));
  Definition definition = migratable(vf_);
  definition.flags = 0;
  define_and_bind(definition);
  log_.emplace(*container_, vf_);
  EXPECT_EQ(log_->start({{0, kGiB}}), ENOTTY);
  EXPECT_EQ(log_->report({0, kGiB}), ENOTTY);
  EXPECT_EQ(log_->stop(), ENOTTY);
}

TEST_F(DirtyLogTest, MP5_EveryPageOfEveryRangeOnEveryReport) {
  // A hull over a machine's memory, as VMMs ask for it, and the pieces they then report by. The longest bitmap spans many
  // pages, and so do the parts by which the kernel maps it.
  const std::vector<Range> asked = {{0, 4 * kGiB}, {4 * kGiB, 1024 * kGiB}};
  ASSERT_EQ(log_->start(asked), 0);
  EXPECT_EQ(log_->granted_page_size, 4 * kKiB);
  const Range reported[] = {{0, 4 * kKiB},
                            {0x1000, 63 * 4 * kKiB},
                            {0x100000, 64 * 4 * kKiB},
                            {0x3000, 65 * 4 * kKiB},
                            {4 * kGiB - 8 * kKiB, 16 * kKiB},
                            {0, 4 * kGiB},
                            {4 * kGiB, 130 * kGiB}};
  for (int round = 0; round < 2; ++round)
    for (const Range& range : reported) expect_all_dirty(range, 4 * kKiB);
  expect_all_dirty({0x100000, 2 * 1024 * kKiB}, 64 * kKiB);
  expect_all_dirty({0, 4 * kGiB}, 2 * 1024 * kKiB);
}

TEST_F(DirtyLogTest, MP5_GoesOnInEveryStateAndOverReset) {
  const Range range{0, kGiB};
  ASSERT_EQ(log_->start({range}), 0);
  for (const uint32_t state : {VFIO_DEVICE_STATE_RUNNING_P2P, VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_STOP_COPY}) {
    const auto reached = log_->guest.device.set_state(state);
    ASSERT_TRUE(reached) << reached.error().text;
    expect_all_dirty(range, 4 * kKiB);
  }
  ASSERT_TRUE(log_->guest.device.reset());
  expect_all_dirty(range, 4 * kKiB);
}

TEST_F(DirtyLogTest, MP5_OnlyBetweenStartAndStop) {
  const Range range{0, kGiB};
  EXPECT_EQ(log_->report(range), EINVAL);
  EXPECT_EQ(log_->stop(), 0) << "stopping what does not run harms nobody";
  ASSERT_EQ(log_->start({range}), 0);
  EXPECT_EQ(log_->start({range}), EINVAL) << "a second start";
  EXPECT_EQ(log_->report(range), 0) << "and the first goes on";
  EXPECT_EQ(log_->stop(), 0);
  EXPECT_EQ(log_->report(range), EINVAL);
  ASSERT_EQ(log_->start({range}), 0);
  EXPECT_EQ(log_->report(range), 0);
}

TEST_F(DirtyLogTest, MP5_EndsWithTheOpen) {
  ASSERT_EQ(log_->start({{0, kGiB}}), 0);
  log_.reset();
  log_.emplace(*container_, vf_);
  EXPECT_EQ(log_->report({0, kGiB}), EINVAL);
}

struct Bad {
  const char* name;
  std::vector<Range> ranges;
  uint64_t page_size;
  int error;
};

class BadRangeTest : public DirtyLogTest, public ::testing::WithParamInterface<Bad> {};

TEST_P(BadRangeTest, MP5_RangesAreValidated) {
  EXPECT_EQ(log_->start(GetParam().ranges, GetParam().page_size), GetParam().error);
  EXPECT_EQ(log_->report({0, kGiB}), EINVAL) << "nothing was started";
}

INSTANTIATE_TEST_SUITE_P(
    Start, BadRangeTest,
    ::testing::Values(Bad{"NoRange", {}, 4096, EINVAL}, Bad{"TooMany", std::vector<Range>(257, {0, 4096}), 4096, E2BIG},
                      Bad{"UnalignedIova", {{0x800, 4096}}, 4096, EINVAL},
                      Bad{"UnalignedLength", {{0, 4097}}, 4096, EINVAL},
                      Bad{"Overlap", {{0, 8192}, {4096, 4096}}, 4096, EINVAL},
                      Bad{"PastTheEnd", {{~uint64_t{0} - 4095, 8192}}, 4096, EOVERFLOW},
                      Bad{"Empty", {{4096, 0}}, 4096, EINVAL}, Bad{"EmptyAtZero", {{0, 0}}, 4096, EINVAL},
                      Bad{"EmptyBehindAnother", {{0, 4096}, {8192, 0}}, 4096, EINVAL},
                      Bad{"NoPageSize", {{0, 0}}, 0, EINVAL},
                      Bad{"PageSizeNoPowerOfTwo", {{0, 3 * 4096}}, 3 * 4096, EINVAL}),
    [](const auto& bad) { return bad.param.name; });

TEST_F(DirtyLogTest, MP5_ReportsAreValidated) {
  ASSERT_EQ(log_->start({{0, kGiB}}), 0);
  std::vector<uint64_t> bitmap(64);
  EXPECT_EQ(log_->report({0, 0}, 4096, bitmap), EINVAL) << "nothing";
  EXPECT_EQ(log_->report({0, 4096}, 2048, bitmap), EINVAL) << "less than a page";
  EXPECT_EQ(log_->report({0, 4096}, 3 * 4096, bitmap), EINVAL) << "no power of two";
  EXPECT_EQ(log_->report({~uint64_t{0} - 4095, 8192}, 4096, bitmap), EOVERFLOW);
  EXPECT_TRUE(std::ranges::all_of(bitmap, [](uint64_t word) { return word == 0; }));
}

}  // namespace
}  // namespace hookline::kernel_test
