// SPDX-License-Identifier: Apache-2.0
//
// What the demo's job is written against: one function that carries traffic and can be migrated, and the stage that has
// two of them. Two implementations: VFs through VFIO, and worker processes with a software model each.
//
// Thread rule: one thread. Errors: std::runtime_error with text for people.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <hookline/migration_state.hpp>

#include "tests/support/icmp_peer.hpp"
#include "tests/support/vf_driver.hpp"

namespace hookline::demo {

struct PrecopySizes {
  uint64_t initial;
  uint64_t dirty;
};

class Side : public testing::BarPort {
 public:
  virtual std::string name() const = 0;
  virtual void reset() = 0;
  /// What a VMM restores from config space: memory and bus master on, MSI-X with its vectors.
  virtual void enable() = 0;
  virtual void set_state(MigrationState state) = 0;
  virtual PrecopySizes precopy_sizes() = 0;
  /// The next bytes of the saved state, 0 when nothing follows in this state (of PRE_COPY: for now).
  virtual size_t read_state(std::span<std::byte> data) = 0;
  virtual void write_state(std::span<const std::byte> data) = 0;
  /// Waits for interrupts, at most that long; a bit mask of the vectors that came.
  virtual uint32_t wait(std::chrono::microseconds limit) = 0;
  /// Interrupts so far.
  virtual uint64_t interrupts() const = 0;
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual Side& source() = 0;
  virtual Side& destination() = 0;
  /// The guest's memory: the same bytes at the same IOVA for both sides.
  virtual testing::DmaMemory memory() = 0;
  /// The driver the PF is bound to; nothing where there is no PF.
  virtual std::optional<std::string> pf_driver() = 0;
  /// The running kernel's release; nothing where no kernel takes part.
  virtual std::optional<std::string> kernel() = 0;
};

std::unique_ptr<Stage> make_vfio_stage(const std::string& source, const std::string& destination);

struct ModelFiles {
  std::string plugin;  ///< nic-82576.so
  std::string model;   ///< nic-82576-model.so
};
std::unique_ptr<Stage> make_model_stage(const ModelFiles& files);

}  // namespace hookline::demo
