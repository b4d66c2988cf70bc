// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/statistics.hpp"

#include <algorithm>
#include <cmath>

namespace hookline::bench {

Spread spread(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return {(values[(n - 1) / 2] + values[n / 2]) / 2, values.front(), values.back()};
}

std::optional<std::pair<double, double>> median_interval95(std::vector<double> values) {
  // Each value lies below the true median with probability one half. The interval from the k-th to the k-th
  // from the end misses it if fewer than k values lie on one side of it.
  const size_t n = values.size();
  double term = std::pow(0.5, static_cast<double>(n));  // exactly j of n values lie below
  double below = 0;                                     // at most j of n
  size_t k = 0;
  while (k < n / 2 && below + term <= 0.025) {
    below += term;
    term *= static_cast<double>(n - k) / static_cast<double>(k + 1);
    ++k;
  }
  if (k == 0) return std::nullopt;
  std::ranges::sort(values);
  return std::pair(values[k - 1], values[n - k]);
}

}  // namespace hookline::bench
