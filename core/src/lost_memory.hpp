// SPDX-License-Identifier: Apache-2.0
//
// Memory the kernel takes back at a moment of its own: the slots, shadow and stream buffer of a session that
// is over.
//
// A worker may be in the middle of a callback then, and touching what is gone is SIGBUS. While the object
// lives, such a page becomes a private one that reads as zero: the callback ends, and the next call says
// ESHUTDOWN or ECANCELED. BARs are not treated so, because they come back: zeroes would be wrong values.
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

  /// Whole pages, mapped as long as the object lives.
  explicit LostMemory(std::span<std::byte> pages);
  ~LostMemory();
  LostMemory(const LostMemory&) = delete;
  LostMemory& operator=(const LostMemory&) = delete;

 private:
  size_t index_;
};

}  // namespace hookline
