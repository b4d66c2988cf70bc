// SPDX-License-Identifier: Apache-2.0
//
// Requests to workers, counted by the module's own tracepoint, in a trace instance of its own.
//
// One thread, one object at a time. Errors: std::runtime_error. Needs root and tracefs at
// /sys/kernel/tracing.
//
//     const Upcalls upcalls;
//     const uint64_t before = upcalls.count();
#pragma once

#include <cstdint>

namespace hookline::bench {

class Upcalls {
 public:
  Upcalls();
  ~Upcalls();
  Upcalls(const Upcalls&) = delete;
  Upcalls& operator=(const Upcalls&) = delete;

  /// Answered or given up, since the object was made.
  uint64_t count() const;
};

}  // namespace hookline::bench
