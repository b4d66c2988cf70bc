// SPDX-License-Identifier: Apache-2.0
//
// A mutator of device-state streams that leaves them well-formed: it changes what is inside the records,
// their order and number, and then makes numbers, lengths and checksums hold again. Otherwise nothing behind
// the first checksum would ever be reached. One input in eight is changed as bytes, and so keeps a checksum
// that does not hold.
//
// Thread rule: one thread. Errors: none; bytes that are no stream are changed as bytes.
//
//     extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max, unsigned seed) {
//       return hookline::fuzz::mutate_stream(data, size, max, seed);
//     }
#pragma once

#include <cstddef>
#include <cstdint>

namespace hookline::fuzz {

size_t mutate_stream(uint8_t* data, size_t size, size_t max_size, unsigned seed);

}  // namespace hookline::fuzz
