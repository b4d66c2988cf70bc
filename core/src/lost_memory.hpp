// SPDX-License-Identifier: Apache-2.0
//
// Memory the kernel takes back at a moment of its own: the slots, shadow, stream buffer and mapped BARs of a
// session that is over.
//
// A worker may be in the middle of a callback then, and touching what is gone is SIGBUS. While the object
// lives, such a page becomes a private one that reads as zero: the callback ends, and the next call says
// ESHUTDOWN or ECANCELED. A BAR is also gone for a while, in a reset for one, and comes back: zeroes would be
// wrong values then, and for good. So for one it is asked first whether the session is over.
// SIGBUS elsewhere does what it did before.
//
// Thread rule: any thread. Signal handlers belong to the process, so this one thing is process-wide: the
// handler is installed with the first object and stays. At most kMost objects are heeded at a time. Errors:
// none.
#pragma once

#include <cstddef>
#include <span>

namespace hookline {

class LostMemory {
 public:
  static constexpr size_t kMost = 64;

  /// Of a descriptor, and async-signal-safe: whether what was mapped by it is gone for good.
  using IsOver = bool (*)(int fd);

  /// Whole pages, mapped as long as the object lives; `fd`, too. No question: what is gone stays gone.
  explicit LostMemory(std::span<std::byte> pages, IsOver is_over = nullptr, int fd = -1);
  ~LostMemory();
  LostMemory(const LostMemory&) = delete;
  LostMemory& operator=(const LostMemory&) = delete;

 private:
  size_t index_;
};

}  // namespace hookline
