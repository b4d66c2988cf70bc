// SPDX-License-Identifier: Apache-2.0
//
// Integers in little-endian bytes at any alignment. The caller has checked that the bytes are there.
#pragma once

#include <concepts>
#include <cstddef>

namespace hookline {

template <std::unsigned_integral T>
void store_le(std::byte* at, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<std::byte>(value >> (8 * i));
}

template <std::unsigned_integral T>
T load_le(const std::byte* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value | std::to_integer<T>(at[i]) << (8 * i));
  return value;
}

}  // namespace hookline
