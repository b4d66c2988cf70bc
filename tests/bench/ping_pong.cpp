// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/ping_pong.hpp"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace hookline::bench {

EventfdPeer::EventfdPeer()
    : there_(::eventfd(0, EFD_CLOEXEC)), back_(::eventfd(0, EFD_CLOEXEC)), pid_(::fork()) {
  if (there_ < 0 || back_ < 0 || pid_ < 0)
    throw std::system_error(errno, std::generic_category(), "eventfd process");
  if (pid_ > 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (eventfd_t value;;)
    if (::eventfd_read(there_, &value) != 0 || ::eventfd_write(back_, 1) != 0) ::_exit(1);
}

EventfdPeer::~EventfdPeer() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::close(there_);
  ::close(back_);
}

void EventfdPeer::round_trip() {
  eventfd_t value;
  if (::eventfd_write(there_, 1) != 0 || ::eventfd_read(back_, &value) != 0)
    throw std::system_error(errno, std::generic_category(), "eventfd round trip");
}

}  // namespace hookline::bench
