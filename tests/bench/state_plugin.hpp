// SPDX-License-Identifier: Apache-2.0
//
// A plugin that owns a device's migration and has a state of a given size: memory, and no work to get at it.
// With no byte it is the empty plugin.
//
// Errors: std::runtime_error. The chain may be used by any process forked later.
//
//     ServedDevice served(address, state_chain(1 << 20));
#pragma once

#include <cstdint>
#include <span>

#include <hookline/chain.hpp>

namespace hookline::bench {

/// `ranges`: what it traps, besides.
Chain state_chain(uint64_t bytes, std::span<const hookline_range> ranges = {});

}  // namespace hookline::bench
