// SPDX-License-Identifier: Apache-2.0
//
// What stands behind a chain whose last plugin answers everything: nothing that could be reached.
//
// One thread. Errors: ENODEV, each time.
#pragma once

#include <cerrno>

#include <hookline/device_access.hpp>

namespace hookline::bench {

class NoDevice final : public DeviceAccess {
 public:
  Result<uint64_t> read(uint32_t, uint64_t, uint32_t) override { return none(); }
  Result<void> write(uint32_t, uint64_t, uint32_t, uint64_t) override { return none(); }
  Result<std::span<volatile std::byte>> map_bar(uint32_t) override { return none(); }
  std::span<std::byte> shadow() override { return {}; }
  Result<void> iova_read(uint64_t, std::span<std::byte>) override { return none(); }
  Result<void> iova_write(uint64_t, std::span<const std::byte>) override { return none(); }
  Result<void> start_once(std::span<const hookline_step>) override { return none(); }
  Result<uint32_t> saved(uint32_t) override { return none(); }
  Result<void> touched(uint32_t, uint64_t, uint64_t, std::span<uint64_t>) override { return none(); }
  Result<void> set_sizes(uint64_t, uint64_t) override { return none(); }

 private:
  static tl::unexpected<Error> none() { return fail(ENODEV, "there is no device in this benchmark"); }
};

}  // namespace hookline::bench
