// SPDX-License-Identifier: Apache-2.0
//
// Version 2 of VFIO_MIG_GET_PRECOPY_INFO, on a kernel that has it: a worker that begins anew during PRE_COPY is told of to a
// VMM that understands it.
#include <unistd.h>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

// Newer than the headers of the distribution.
constexpr uint32_t kPrecopyInfoV2 = 12, kReinit = 1;

class PrecopyInfoTest : public HooksTest {
 protected:
  void SetUp() override {
    HooksTest::SetUp();
    define_and_bind(migratable(vf_));
    worker_.emplace(vf_, *board_);
    guest_.emplace(*container_, vf_);
    ASSERT_TRUE(wait_served(vf_));
  }
  void TearDown() override {
    guest_.reset();
    worker_.reset();
    HooksTest::TearDown();
  }
  // What the worker says it has when its first bytes have been read.
  vfio_precopy_info after_the_first_bytes(uint64_t initial) {
    board_->initial_bytes = initial;
    auto stream = guest_->device.set_state(VFIO_DEVICE_STATE_PRE_COPY);
    EXPECT_TRUE(stream);
    stream_ = std::move(*stream);
    std::vector<std::byte> bytes(kPreCopyBytes);
    EXPECT_EQ(::read(stream_.get(), bytes.data(), bytes.size()), kPreCopyBytes);
    return vfio::precopy_info(stream_).value();
  }

  SharedBoard board_ = shared_board();
  std::optional<Worker> worker_;
  std::optional<Guest> guest_;
  vfio::Descriptor stream_;
};

TEST_F(PrecopyInfoTest, MP5_NewBeginningIsToldOnce) {
  ASSERT_TRUE(guest_->device.feature(VFIO_DEVICE_FEATURE_SET | kPrecopyInfoV2, {}));
  const vfio_precopy_info info = after_the_first_bytes(500);
  EXPECT_EQ(info.flags, kReinit);
  EXPECT_EQ(info.initial_bytes, 500u);
  EXPECT_EQ(vfio::precopy_info(stream_).value().flags, 0u);
}

TEST_F(PrecopyInfoTest, MP5_WithoutANewBeginningNothingIsTold) {
  ASSERT_TRUE(guest_->device.feature(VFIO_DEVICE_FEATURE_SET | kPrecopyInfoV2, {}));
  EXPECT_EQ(after_the_first_bytes(0).flags, 0u);
}

TEST_F(PrecopyInfoTest, MP5_WhoDoesNotUnderstandItSeesInitialBytesOnlyFall) {
  const vfio_precopy_info info = after_the_first_bytes(500);
  EXPECT_EQ(info.flags, 0u);
  EXPECT_LE(info.initial_bytes, kPreCopyBytes);
  EXPECT_EQ(info.initial_bytes + info.dirty_bytes, 500u);
}

}  // namespace
}  // namespace hookline::kernel_test
