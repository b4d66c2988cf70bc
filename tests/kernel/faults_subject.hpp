// SPDX-License-Identifier: Apache-2.0
//
// The device that the fault matrix hits, as far as one differs from another: how it is defined and served, what a guest sees
// of it, and what its stream is.
//
// Thread rule: one thread. Errors: what prevents a cell from beginning or being made whole throws.
//
//     auto subject = make_gpu();
//     subject->define(control);
//     auto worker = subject->start_worker(board);
//     subject->opened(container, guest);      // after each open
//     subject->mark(guest);                   // heart(guest) == kBeating
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/kernel/faults.hpp"
#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {

inline constexpr uint16_t kVfId = 0x10ca, kPfId = 0x10c9;
inline constexpr uint32_t kMaxNicState = 8192;

// Long enough for a worker on a busy emulated machine, short enough to be waited for in half of the cells.
inline constexpr uint32_t kLimitMs = 400;

/// What heart() says: the value of a register, or where there is none that could show it, what stands for one.
inline constexpr uint32_t kBeating = 0x11223344;   ///< as the guest marked it
inline constexpr uint32_t kStanding = 0x11223300;  ///< the same, and the stop program has run
inline constexpr uint32_t kFresh = 0x5c5c5c5c;     ///< the reset program has run
inline constexpr uint32_t kHalf = 0x11220000;      ///< the first part of the stream is loaded over the guest's marks

class Subject {
 public:
  virtual ~Subject() = default;
  const std::string& address() const { return address_; }

  /// EBUSY is none: it is defined.
  virtual void define(const Control& control) const = 0;
  virtual std::unique_ptr<Worker> start_worker(Board& board) const = 0;
  virtual void behave(Board& board) const = 0;

  virtual void opened(const vfio::Container&, const Guest&) {}
  virtual void mark(const Guest& guest) = 0;
  virtual uint32_t heart(const Guest& guest) const = 0;
  virtual uint32_t standing() const = 0;
  /// A trapped access; errno.
  virtual int access(const Guest& guest) const = 0;
  /// The worker answers one.
  virtual bool is_answered(const Guest& guest, const Board& board) const = 0;

  // Its stream.
  virtual size_t read_piece() const = 0;
  virtual size_t pre_copy_size() const = 0;
  /// What there is to load.
  virtual std::span<const uint8_t> to_load() const = 0;
  /// Of it before the cell begins and with each write afterwards.
  virtual size_t load_at_first() const = 0;
  virtual size_t load_piece() const = 0;
  virtual bool is_whole(std::span<const uint8_t> saved) const = 0;
  /// The state after a whole load is what the guest's marks are from now on.
  virtual void loaded() {}
  /// Between the rounds of a migration.
  virtual void draw(const Guest&) {}
  /// A migration begins with this state.
  virtual State begins_in() const { return State::stop_copy; }
  /// Where nothing else would show it: loads what was saved on the device after a reset.
  virtual void come_back(const Guest&, std::span<const uint8_t>) {}
  /// What is loaded next is a stream that this has happened to.
  virtual void spoil(Event event) = 0;

  /// What a VMM that is killed has going besides; it keeps what this returns.
  virtual std::shared_ptr<void> begin_vmm(const Guest&) { return nullptr; }

 protected:
  explicit Subject(std::string address) : address_(std::move(address)) {}

 private:
  const std::string address_;
};

/// `lone`: the card that has its bus for itself.
std::unique_ptr<Subject> make_nic(bool lone = false);
std::unique_ptr<Subject> make_logging_nic();
std::unique_ptr<Subject> make_gpu();

}  // namespace hookline::kernel_test
