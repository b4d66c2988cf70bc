// SPDX-License-Identifier: Apache-2.0
//
// The three kinds of processes that a channel fuzzer lets loose on one function, each until it is killed.
//
// Thread rule: called in a fresh process of one thread; starts its own. Errors: moves that fail are the
// point; what must never be goes to Board::violated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "channel_actor.hpp"
#include "tests/kernel/hooks.hpp"

namespace hookline::fuzz {

/// Register steps that are valid for BAR 0 of an 82576 VF and do no harm; mailbox memory and moderation only.
std::vector<vfio_pci_hooks_step> harmless_steps(Random& random, bool may_wait);
/// A definition that is valid, of any shape.
kernel_test::Definition any_definition(Random& random, const std::string& address);

/// A VMM: opens the function and does to it whatever a VMM can, migrations among it.
[[noreturn]] void run_vmm(const std::string& address, uint64_t seed, Board& board, size_t first_thread);
/// A worker: attaches, serves, answers well mostly, and uses its descriptors for whatever they take.
[[noreturn]] void run_worker(const std::string& address, uint64_t seed, Board& board, size_t first_thread);
/// Somebody with the control device: `bound` is in use, `unbound` may be defined at will. With `rights` as an
/// administrator, else without any, and then nothing but questions may succeed.
[[noreturn]] void run_control(const std::string& bound, const std::string& unbound, bool rights,
                              uint64_t seed, Board& board, size_t first_thread);

/// Of each process.
inline constexpr size_t kThreadsOfOne = 4;

}  // namespace hookline::fuzz
