// SPDX-License-Identifier: Apache-2.0
//
// The anchor of every figure with two processes in it: a process that answers one eventfd with another. No
// round trip between two sleeping processes is shorter on Linux.
//
// One thread. Errors: std::system_error.
//
//     EventfdPeer peer;
//     pin(peer.pid(), kSecondCpu);
//     peer.round_trip();
#pragma once

#include <sys/types.h>

namespace hookline::bench {

class EventfdPeer {
 public:
  EventfdPeer();
  ~EventfdPeer();
  EventfdPeer(const EventfdPeer&) = delete;
  EventfdPeer& operator=(const EventfdPeer&) = delete;

  pid_t pid() const { return pid_; }
  void round_trip();

 private:
  int there_, back_;
  pid_t pid_;
};

}  // namespace hookline::bench
