// SPDX-License-Identifier: Apache-2.0
//
// Result<T>: a value, or an Error that says what to return to the caller (errno) and what to tell a person (text).
//
// Nothing in core throws across a function that returns a Result. Errors are values: copyable, free of references.
//
//     Result<uint32_t> head = device.read32(bar, 0x2810);
//     if (!head) return fail(head.error());
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace hookline {

struct Error {
  int code = 0;      ///< positive errno; what the VMM's call returns, negated
  std::string text;  ///< what, where, why and what to do; one line without a trailing newline
};

template <typename T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(int code, std::string text) { return tl::make_unexpected(Error{code, std::move(text)}); }
inline tl::unexpected<Error> fail(Error error) { return tl::make_unexpected(std::move(error)); }

}  // namespace hookline
