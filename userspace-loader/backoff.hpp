// SPDX-License-Identifier: Apache-2.0
//
// How long to wait before a worker is started again: not at all the first time, because a guest waits; longer each time it
// ends soon after its start, because then starting it more often will not help.
//
// Plain value; one thread. No errors.
//
//     std::this_thread::sleep_for(backoff.next(lived));
#pragma once

#include <algorithm>
#include <chrono>

namespace hookline::loader {

class Backoff {
 public:
  using Duration = std::chrono::milliseconds;
  static constexpr Duration kFirst{50}, kLongest{5000}, kLivedWell{10000};

  /// `lived`: from the start of the worker that has just ended to its end.
  Duration next(Duration lived) {
    if (lived >= kLivedWell) delay_ = Duration::zero();
    const Duration now = delay_;
    delay_ = std::clamp(2 * delay_, kFirst, kLongest);
    return now;
  }

 private:
  Duration delay_ = Duration::zero();
};

}  // namespace hookline::loader
