// SPDX-License-Identifier: Apache-2.0
//
// Where the two processes of a round trip run: the client on the first CPU, its peer on the same or on the
// other one. It decides more than what they run.
#pragma once

#include "tests/bench/timing.hpp"

namespace hookline::bench {

struct Placement {
  const char* name;
  int peer_cpu;  ///< the client is on kFirstCpu
};
inline constexpr Placement kSameCpu{"same CPU", kFirstCpu}, kCrossCpu{"cross CPU", kSecondCpu};
inline constexpr Placement kPlacements[] = {kSameCpu, kCrossCpu};

inline constexpr const char* kEventfd = "eventfd round trip, two processes";

}  // namespace hookline::bench
