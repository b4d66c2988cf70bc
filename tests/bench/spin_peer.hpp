// SPDX-License-Identifier: Apache-2.0
//
// The anchor of figures with a polling worker: a process that spins on a word of shared memory and answers it
// in another. Nothing two processes can do is faster. Only across CPUs: on one, each would wait for the
// other's time slice to end.
//
// One thread. Errors: std::system_error.
//
//     SpinPeer peer;
//     pin(peer.pid(), kSecondCpu);
//     peer.round_trip();
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

namespace hookline::bench {

class SpinPeer {
 public:
  SpinPeer();
  ~SpinPeer();
  SpinPeer(const SpinPeer&) = delete;
  SpinPeer& operator=(const SpinPeer&) = delete;

  pid_t pid() const { return pid_; }
  void round_trip();

 private:
  struct Words {
    alignas(64) std::atomic<uint32_t> there{0};
    alignas(64) std::atomic<uint32_t> back{0};
  };
  Words* words_;  // shared with the process
  pid_t pid_;
};

}  // namespace hookline::bench
