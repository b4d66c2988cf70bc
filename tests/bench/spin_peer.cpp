// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/spin_peer.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <system_error>

namespace hookline::bench {

SpinPeer::SpinPeer() {
  void* page = ::mmap(nullptr, sizeof(Words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "shared memory");
  words_ = new (page) Words;
  pid_ = ::fork();
  if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "spinning process");
  if (pid_ > 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (uint32_t seen = 0;;) {
    const uint32_t now = words_->there.load(std::memory_order_acquire);
    if (now == seen) continue;
    seen = now;
    words_->back.store(now, std::memory_order_release);
  }
}

SpinPeer::~SpinPeer() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::munmap(words_, sizeof(Words));
}

void SpinPeer::round_trip() {
  const uint32_t next = words_->there.load(std::memory_order_relaxed) + 1;
  words_->there.store(next, std::memory_order_release);
  while (words_->back.load(std::memory_order_acquire) != next) {
  }
}

}  // namespace hookline::bench
