// SPDX-License-Identifier: Apache-2.0
//
// The ring of slices without a kernel in it: a process that fills or drains shared memory as a worker does,
// with the library's stream writer and reader, and this one, which copies as the kernel's thread would for a
// VMM. It shows on a processor what the test machine's emulator cannot: how fast a worker's part of a stream
// is.
//
// One thread. Errors: std::system_error.
//
//     SlicePeer worker(SlicePeer::saves);
//     pin(worker.pid(), kSecondCpu);
//     worker.move(buffer);  // 1 MiB
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <vector>

namespace hookline::bench {

class SlicePeer {
 public:
  enum Role { saves, loads };
  explicit SlicePeer(Role role);
  ~SlicePeer();
  SlicePeer(const SlicePeer&) = delete;
  SlicePeer& operator=(const SlicePeer&) = delete;

  /// A whole one of 16 MiB, for a peer that loads.
  static std::vector<std::byte> stream();

  pid_t pid() const { return pid_; }
  /// One read() (of whole slices) or write() of a data file. A write is over when its last byte was checked.
  void move(std::span<std::byte> buffer);

 private:
  struct Window;
  [[noreturn]] void save();
  [[noreturn]] void load();

  Role role_;
  Window* window_;
  size_t next_ = 0;
  pid_t pid_;
};

}  // namespace hookline::bench
