// SPDX-License-Identifier: Apache-2.0
//
// A benchmark has no use for half a result: an Error becomes a std::runtime_error with its text.
#pragma once

#include <stdexcept>
#include <type_traits>
#include <utility>

#include <hookline/result.hpp>

namespace hookline::bench {

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace hookline::bench
