// SPDX-License-Identifier: Apache-2.0
#include "register_program.hpp"

#include <array>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/plugin.hpp>

#include "fake_plugin.hpp"

namespace hookline {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RegisterProgram : public ::testing::Test {
 protected:
  Result<void> run(std::vector<hookline_step> steps) {
    const uint64_t bars[6] = {sizeof(device_.memory)};
    return run_program("stop", steps, device_, bars, saved_);
  }
  test::Journal journal_;
  test::FakeAccess device_{journal_};
  std::array<uint32_t, HOOKLINE_SAVED> saved_{};
};

TEST_F(RegisterProgram, StepsDoWhatTheHeaderSays) {
  device_.memory[0] = 0xf1;
  ASSERT_TRUE(run({save(0, 0, 3), clear_bits(0, 0, 0xf0), set_bits(0, 0, 0x06), rewrite(0, 8),
                   write(0, 4, 0xabcd), restore(0, 12, 3), poll(0, 4, 0xff, 0xcd, 0), delay(1)}));
  EXPECT_THAT(journal_,
              ElementsAre("device read 0x0+4",                            //
                          "device read 0x0+4", "device write 0x0+4=0x1",  //
                          "device read 0x0+4", "device write 0x0+4=0x7",  //
                          "device read 0x8+4", "device write 0x8+4=0x0",  //
                          "device write 0x4+4=0xabcd", "device write 0xc+4=0xf1", "device read 0x4+4"));
  EXPECT_EQ(saved_[3], 0xf1U);
}

TEST_F(RegisterProgram, AFillWritesEachWordOfItsRangeAndNoOther) {
  for (uint8_t& byte : device_.memory) byte = 0x11;
  ASSERT_TRUE(run({fill(0, 8, 12, 0xa1b2c3d4)}));
  EXPECT_THAT(journal_, ElementsAre("device write 0x8+4=0xa1b2c3d4", "device write 0xc+4=0xa1b2c3d4",
                                    "device write 0x10+4=0xa1b2c3d4"));
  EXPECT_EQ(device_.memory[7], 0x11);
  EXPECT_EQ(device_.memory[20], 0x11);
}

TEST_F(RegisterProgram, AFillOfNoLengthGoesOnToTheEnd) {
  for (uint8_t& byte : device_.memory) byte = 0x11;
  ASSERT_TRUE(run({fill(0, 8, 0, 0xa1a1a1a1)}));
  EXPECT_EQ(device_.memory[7], 0x11);
  for (size_t i = 8; i < sizeof(device_.memory); ++i) EXPECT_EQ(device_.memory[i], 0xa1) << i;
}

TEST_F(RegisterProgram, APollThatIsNeverMetEndsTheProgram) {
  const Result<void> ok = run({poll(0, 4, 1, 1, 1000), write(0, 8, 1)});
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, ETIMEDOUT);
  EXPECT_THAT(ok.error().text, AllOf(HasSubstr("stop program, step 0"), HasSubstr("register 0x4 is 0x0")));
  EXPECT_EQ(device_.memory[8], 0);
}

TEST_F(RegisterProgram, ADeadDeviceEndsTheProgram) {
  device_.failing = Error{ENODEV, "gone"};
  const Result<void> ok = run({write(0, 0, 1), write(0, 4, 1)});
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, ENODEV);
  EXPECT_EQ(journal_.size(), 1U);
}

TEST(CheckProgram, RefusesWhatTheKernelRefuses) {
  const uint64_t bars[6] = {0x100};
  const hookline_step steps[] = {
      {99, 0, 4, 0, 0, 0, 0, 0},
      {HOOKLINE_STEP_WRITE, 0, 8, 0, 0, 0, 0, 0},
      {HOOKLINE_STEP_WRITE, 0, 4, 0, 2, 0, 0, 0},
      {HOOKLINE_STEP_WRITE, 6, 4, 0, 0, 0, 0, 0},
      {HOOKLINE_STEP_WRITE, 0, 4, 0, 0x100, 0, 0, 0},
      {HOOKLINE_STEP_WRITE, 1, 4, 0, 0, 0, 0, 0},
      {HOOKLINE_STEP_WRITE, 0, 4, 0, 0, 0, 0, 5},
      {HOOKLINE_STEP_SAVE, 0, 4, HOOKLINE_SAVED, 0, 0, 0, 0},
      fill(0, 0xfc, 8),
      fill(0, 0, 0x104),
      fill(0, 0x100, 0),
      fill(0, 0, 6),
      fill(0, 2, 4),
      fill(1, 0, 4),
      fill(0, 4, 0xfffffffc),
      {HOOKLINE_STEP_FILL, 0, 2, 0, 0, 4, 0, 0},
      {HOOKLINE_STEP_FILL, 0, 4, 0, 0, 4, 0, 5},
      poll(0, 0, 1, 1, 100001),
      poll(0, 0, 1, 2, 100),
      delay(100001),
  };
  for (const hookline_step& step : steps)
    EXPECT_FALSE(check_program("stop", {&step, 1}, true, bars)) << int{step.op};

  const hookline_step last = write(0, 0xfc, 1);
  EXPECT_TRUE(check_program("stop", {&last, 1}, true, bars));
  EXPECT_TRUE(check_program("stop", std::vector(10, delay(100000)), true, bars));
  EXPECT_FALSE(check_program("stop", std::vector(11, delay(100000)), true, bars));
  EXPECT_FALSE(check_program("reset", std::vector(1, delay(0)), false, bars));
  EXPECT_TRUE(check_program("reset", std::vector(1, fill(0, 0xfc, 4)), false, bars));
  EXPECT_TRUE(check_program("reset", std::vector(1, fill(0, 0x80, 0)), false, bars));
}

TEST(CheckProgram, RL1_AProgramFillsABarOnceAndAllOfIt) {
  const uint64_t bars[6] = {256 << 20, 0, 0x1000};
  EXPECT_TRUE(check_program("reset", std::vector{fill(0, 0, 0), fill(2, 0, 0)}, false, bars));
  EXPECT_TRUE(check_program("reset", std::vector(2, fill(0, 0, 128 << 20)), false, bars));
  EXPECT_FALSE(check_program("reset", std::vector{fill(0, 0, (256 << 20) + 4)}, false, bars));
  const Result<void> twice = check_program("reset", std::vector{fill(0, 0, 0), fill(0, 0, 4)}, false, bars);
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().text,
            "reset program, step 1: with it the program fills 0x10000004 bytes of BAR 0, which has 0x10000000: fill none twice");
  EXPECT_TRUE(check_program("reset", std::vector(2, fill(0, 0, 256 << 20)), false)) << "sizes that are not known yet";
}

}  // namespace
}  // namespace hookline
