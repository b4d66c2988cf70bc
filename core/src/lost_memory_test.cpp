// SPDX-License-Identifier: Apache-2.0
//
// A file that shrinks under its mapping takes memory away as the kernel module does.
#include "lost_memory.hpp"

#include <csignal>
#include <cstdint>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace hookline {
namespace {

class LostMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fd_ = ::memfd_create("lost", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(fd_, static_cast<off_t>(size_)), 0);
    at_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    ASSERT_NE(at_, MAP_FAILED);
    first() = 7;
  }
  void TearDown() override {
    ::munmap(at_, size_);
    ::close(fd_);
  }
  void lose() { ASSERT_EQ(::ftruncate(fd_, 0), 0); }
  std::span<std::byte> pages() { return {static_cast<std::byte*>(at_), size_}; }
  volatile uint8_t& first() { return static_cast<volatile uint8_t*>(at_)[0]; }
  volatile uint8_t& last() { return static_cast<volatile uint8_t*>(at_)[size_ - 1]; }

  const size_t size_ = 2 * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  int fd_ = -1;
  void* at_ = nullptr;
};
using LostMemoryDeathTest = LostMemoryTest;

TEST_F(LostMemoryTest, ReadsAsZeroAndTakesWritesOnceItIsLost) {
  const LostMemory memory(pages());
  EXPECT_EQ(first(), 7);
  lose();
  EXPECT_EQ(first(), 0);
  last() = 9;
  EXPECT_EQ(last(), 9);
}

TEST_F(LostMemoryTest, WhatMayComeBackIsReplacedOnceItIsOver) {
  const LostMemory memory(
      pages(), [](int fd) { return ::lseek(fd, 0, SEEK_CUR) == 1; }, fd_);
  ::lseek(fd_, 1, SEEK_SET);
  lose();
  EXPECT_EQ(first(), 0);
}

TEST_F(LostMemoryDeathTest, WhatMayComeBackIsNotReplacedBefore) {
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);
        const LostMemory memory(
            pages(), [](int fd) { return ::lseek(fd, 0, SEEK_CUR) == 1; }, fd_);
        lose();
        first() = 1;
      },
      ::testing::KilledBySignal(SIGBUS), "");
}

TEST_F(LostMemoryDeathTest, ElsewhereSigbusEndsTheProcess) {
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);
        { const LostMemory memory(pages()); }
        lose();
        first() = 1;
      },
      ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace hookline
