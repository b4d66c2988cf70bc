// SPDX-License-Identifier: Apache-2.0
//
// A device without anything behind it: registers read 0, and whatever else is asked for is not supported.
#pragma once

#include <cerrno>

#include "hookline/open_device.hpp"

namespace hookline::tests {

class NoDevice final : public DeviceAccess {
 public:
  Result<uint64_t> read(uint32_t, uint64_t, uint32_t) override { return 0; }
  Result<void> write(uint32_t, uint64_t, uint32_t, uint64_t) override { return {}; }
  Result<std::span<volatile std::byte>> map_bar(uint32_t) override { return none(); }
  std::span<std::byte> shadow() override { return shadow_; }
  Result<void> iova_read(uint64_t, std::span<std::byte>) override { return none(); }
  Result<void> iova_write(uint64_t, std::span<const std::byte>) override { return none(); }
  Result<void> start_once(std::span<const hookline_step>) override { return none(); }
  Result<uint32_t> saved(uint32_t) override { return none(); }
  Result<void> touched(uint32_t, uint64_t, uint64_t, std::span<uint64_t>) override { return none(); }
  Result<void> set_sizes(uint64_t, uint64_t) override { return {}; }

 private:
  static tl::unexpected<Error> none() { return fail(EOPNOTSUPP, "there is no device"); }
  std::byte shadow_[4096] = {};
};

}  // namespace hookline::tests
