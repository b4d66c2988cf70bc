// SPDX-License-Identifier: Apache-2.0
//
// Cells of the fault matrix about what is wrong inside a stream: a worker of the library, with the stream that it really
// writes, instead of the worker of the other cells, which takes any bytes.
//
// Thread rule: one thread. Errors: GoogleTest failures, or what it throws ends the test.
#pragma once

#include <string>

#include "tests/kernel/faults.hpp"

namespace hookline::kernel_test {

bool is_inside_stream(Event event);

/// Defines the function, has its own state saved, spoils the stream, loads it, and afterwards the good one.
void run_stream_cell(const std::string& vf, Event event, const Outcome& outcome);

}  // namespace hookline::kernel_test
