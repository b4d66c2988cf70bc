// SPDX-License-Identifier: Apache-2.0
//
// One open of one device as a plugin chain's host sees it: registers behind the chain, memory that survives the process,
// guest memory, the one-shot start program. Two implementations: the hook channel (real devices) and the software model.
//
// Thread rule: one thread. Errors: Result, with ENODEV or ESHUTDOWN once the device is closed and ECANCELED once this
// worker's session was revoked; after one of those every further call fails the same way and touches nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "hookline/plugin.h"
#include "hookline/result.hpp"

namespace hookline {

/// What the supervisor does on the PF's side for exactly this VF. EOPNOTSUPP where there is no PF.
class PfPort {
 public:
  virtual ~PfPort() = default;
  virtual Result<void> request(hookline_pf_request& request) = 0;
};

class DeviceAccess {
 public:
  virtual ~DeviceAccess() = default;

  /// Register access behind the chain: 1, 2, 4 or 8 bytes, naturally aligned, little-endian value.
  virtual Result<uint64_t> read(uint32_t region, uint64_t offset, uint32_t width) = 0;
  virtual Result<void> write(uint32_t region, uint64_t offset, uint32_t width, uint64_t value) = 0;
  /// The whole BAR mapped into this process, until the device is closed. EOPNOTSUPP: use read and write.
  virtual Result<std::span<volatile std::byte>> map_bar(uint32_t bar) = 0;
  /// The shadow of the whole chain, as large as was asked for when the device was defined.
  virtual std::span<std::byte> shadow() = 0;
  /// Guest memory; EPERM unless granted.
  virtual Result<void> iova_read(uint64_t iova, std::span<std::byte> data) = 0;
  virtual Result<void> iova_write(uint64_t iova, std::span<const std::byte> data) = 0;
  virtual Result<void> start_once(std::span<const hookline_step> steps) = 0;
  virtual Result<uint32_t> saved(uint32_t slot) = 0;
  /// Sets bit n for page n of 4 KiB from `offset` (page aligned) that the guest's processors may have touched since the call
  /// before; at first and after a reset, all. `bitmap` has a bit for each of `pages`. EOPNOTSUPP: nobody keeps track.
  virtual Result<void> touched(uint32_t bar, uint64_t offset, uint64_t pages, std::span<uint64_t> bitmap) = 0;
  /// What MIG_DATA_SIZE and PRECOPY_INFO answer before a stream has begun; bytes.
  virtual Result<void> set_sizes(uint64_t initial, uint64_t stop_copy) = 0;
};

}  // namespace hookline
