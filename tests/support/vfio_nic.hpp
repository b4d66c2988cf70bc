// SPDX-License-Identifier: Apache-2.0
//
// An open VFIO device as the VF driver sees it: BAR 0, through the mapping where there is one, and its MSI-X vectors.
//
// Thread rule: one thread. Errors: std::runtime_error, as the driver's own.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "tests/support/vf_driver.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::testing {

class VfioNic final : public BarPort {
 public:
  static constexpr size_t kVectors = 3;

  /// `device` outlives the object.
  explicit VfioNic(const vfio::Device& device);

  /// What a VMM restores from config space: memory and bus master on, MSI-X with its vectors.
  void enable();

  uint32_t read32(uint32_t offset) override;
  void write32(uint32_t offset, uint32_t value) override;
  /// True if an access to this offset needs no system call.
  bool is_mapped(uint32_t offset) const { return find(offset) != nullptr; }

  /// Waits for interrupts, at most that long; a bit mask of the vectors that came.
  uint32_t wait(std::chrono::microseconds limit);
  uint64_t interrupts() const { return interrupts_; }

 private:
  struct MappedArea {
    vfio::Area where;
    vfio::Mapping mapping;
  };
  const MappedArea* find(uint32_t offset) const;

  const vfio::Device& device_;
  std::vector<MappedArea> areas_;
  std::array<vfio::Descriptor, kVectors> vectors_;
  uint64_t interrupts_ = 0;
};

}  // namespace hookline::testing
