// SPDX-License-Identifier: Apache-2.0
//
// What rounds of a measurement say: median, extremes, and how sure the median is.
//
// Pure functions, any thread. Values are finite and at least one.
//
//     Spread s = spread({9.8, 10.1, 10.0});           // 10.0 [9.8..10.1]
//     auto interval = median_interval95(ratios);      // nothing for fewer than six
#pragma once

#include <optional>
#include <utility>
#include <vector>

namespace hookline::bench {

struct Spread {
  double median, low, high;
};

Spread spread(std::vector<double> values);

/// The interval between the k-th smallest and the k-th largest value, with the largest k for which it holds
/// the true median with a probability of at least 95 %. Needs independent rounds and nothing else: no
/// distribution is assumed.
std::optional<std::pair<double, double>> median_interval95(std::vector<double> values);

}  // namespace hookline::bench
