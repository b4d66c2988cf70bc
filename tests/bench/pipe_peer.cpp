// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/pipe_peer.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <vector>

namespace hookline::bench {
namespace {

constexpr size_t kBuffer = 1 << 20;

std::system_error failed(const char* what) {
  return std::system_error(errno, std::generic_category(), what);
}

}  // namespace

PipePeer::PipePeer(Role role) : role_(role) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw failed("pipe");
  if (::fcntl(ends[0], F_SETPIPE_SZ, kBuffer) < 0) throw failed("the buffer of a pipe");
  const int there = role == gives ? ends[1] : ends[0];
  here_ = role == gives ? ends[0] : ends[1];
  pid_ = ::fork();
  if (pid_ < 0) throw failed("process at a pipe");
  if (pid_ > 0) {
    ::close(there);
    return;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::close(here_);
  std::vector<std::byte> bytes(kBuffer, std::byte{0x5a});
  for (;;) {
    const ssize_t moved = role == gives ? ::write(there, bytes.data(), bytes.size())
                                        : ::read(there, bytes.data(), bytes.size());
    if (moved <= 0) ::_exit(1);
  }
}

PipePeer::~PipePeer() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::close(here_);
}

void PipePeer::move(std::span<std::byte> buffer) {
  while (!buffer.empty()) {
    const ssize_t moved = role_ == gives ? ::read(here_, buffer.data(), buffer.size())
                                         : ::write(here_, buffer.data(), buffer.size());
    if (moved <= 0) throw failed("moving bytes through a pipe");
    buffer = buffer.subspan(static_cast<size_t>(moved));
  }
}

}  // namespace hookline::bench
