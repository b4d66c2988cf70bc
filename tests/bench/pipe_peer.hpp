// SPDX-License-Identifier: Apache-2.0
//
// The anchor of figures that move bytes: a process at the other end of a pipe with a buffer of 1 MiB, which
// gives or takes 1 MiB at a time.
//
// One thread. Errors: std::system_error.
//
//     PipePeer source(PipePeer::gives);
//     source.move(buffer);      // reads until the buffer is full
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

namespace hookline::bench {

class PipePeer {
 public:
  enum Role { gives, takes };
  explicit PipePeer(Role role);
  ~PipePeer();
  PipePeer(const PipePeer&) = delete;
  PipePeer& operator=(const PipePeer&) = delete;

  pid_t pid() const { return pid_; }
  /// All of the buffer, in one read() or write() if the pipe lets it.
  void move(std::span<std::byte> buffer);

 private:
  Role role_;
  int here_ = -1;
  pid_t pid_ = -1;
};

}  // namespace hookline::bench
