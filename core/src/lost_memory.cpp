// SPDX-License-Identifier: Apache-2.0
#include "lost_memory.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>

#include <sys/mman.h>
#include <unistd.h>

namespace hookline {

namespace {

// Read by the handler at any moment: a range is there once its end is, and gone once its end is not.
struct Range {
  std::atomic<bool> taken = false;
  std::atomic<uintptr_t> begin = 0, end = 0;
  std::atomic<LostMemory::IsOver> is_over = nullptr;
  std::atomic<int> fd = -1;
};
std::array<Range, LostMemory::kMost> ranges;
struct sigaction before;
uintptr_t page_size;

bool replace(uintptr_t address) {
  for (const Range& range : ranges) {
    if (address < range.begin || address >= range.end) continue;
    const LostMemory::IsOver is_over = range.is_over;
    if (is_over && !is_over(range.fd)) return false;
    void* page = reinterpret_cast<void*>(address / page_size * page_size);
    return ::mmap(page, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
           page;
  }
  return false;
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const bool replaced = replace(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = error;
  if (replaced) return;
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    // The access is repeated, and ends the process where it stands.
    ::sigaction(SIGBUS, &before, nullptr);
  }
}

bool install() {
  page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, &before) == 0;
}

}  // namespace

LostMemory::LostMemory(std::span<std::byte> pages, IsOver is_over, int fd) : index_(0) {
  [[maybe_unused]] static const bool installed = install();
  while (index_ < kMost && ranges[index_].taken.exchange(true)) ++index_;
  if (index_ == kMost) return;
  ranges[index_].is_over = is_over;
  ranges[index_].fd = fd;
  ranges[index_].begin = reinterpret_cast<uintptr_t>(pages.data());
  ranges[index_].end = reinterpret_cast<uintptr_t>(pages.data()) + pages.size();
}

LostMemory::~LostMemory() {
  if (index_ == kMost) return;
  ranges[index_].end = 0;
  ranges[index_].begin = 0;
  ranges[index_].taken = false;
}

}  // namespace hookline
