// SPDX-License-Identifier: Apache-2.0
//
// The device that the fault matrix hits: a function with a worker and a VFIO client, kept from cell to cell. One register,
// the heart, shows what the device does: the stop program saves it and clears its low byte, the start program restores it,
// the reset program gives it a value of its own.
//
// Thread rule: one thread. Errors: what prevents a cell from beginning or being made whole throws.
//
//     Bench bench(vf, kVfId);
//     bench.prepare();                 // whole, RUNNING
//     bench.enter(State::pre_copy);    // the stream has begun
//     int error = bench.use();         // the call in hand
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/kernel/faults.hpp"
#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {

inline constexpr uint16_t kVfId = 0x10ca, kPfId = 0x10c9;

inline constexpr uint64_t kHeart = kMailboxMemory + 0x30;
inline constexpr uint32_t kBeating = 0x11223344, kStanding = 0x11223300, kFresh = 0x5c5c5c5c;

inline constexpr uint32_t kPiece = 64, kPreCopyState = 1024, kWholeState = 2048, kMaxState = 8192;

/// What a cell must give back.
struct Held {
  int references = 0;   ///< of the module
  size_t files = 0;     ///< of this process
  uint32_t status = 0;  ///< VFIO_PCI_HOOKS_STATUS_*
  bool operator==(const Held&) const = default;
};

class Bench {
 public:
  Bench(std::string address, uint16_t device_id);
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Makes it whole, whatever the cell before has left.
  void prepare();
  /// The guest's marks on a device that is whole.
  void mark();
  void enter(State state);
  /// A trapped read, or the next piece of the stream. 0 or errno.
  int use();
  /// From a state where nothing failed: the stream to its end where there is one, and RUNNING.
  void go_on();

  State state() const;
  uint32_t heart() const;
  vfio_pci_hooks_status status() const { return control_.status(address_); }
  Held held() const;
  const std::string& address() const { return address_; }
  const vfio::Device& device() const { return guest_->device; }
  Board& board() { return *board_; }
  Worker& worker() { return *worker_; }
  vfio::Descriptor& stream() { return stream_; }
  std::vector<uint8_t>& moved() { return moved_; }

  void define_and_bind();
  void start_worker();
  /// Until the worker has begun its session.
  void wait_served() const;
  void open();
  void close() { guest_.reset(); }
  bool is_open() const { return guest_ != nullptr; }
  void reset();

 private:
  void rebuild();
  void behave();

  const std::string address_;
  const uint16_t device_id_;
  Control control_;
  SharedBoard board_ = shared_board();
  std::unique_ptr<Worker> worker_;
  std::optional<vfio::Container> container_;
  std::unique_ptr<Guest> guest_;
  uint64_t sessions_ = 0;  // that the worker had begun before the one that is waited for
  State in_ = State::running;
  vfio::Descriptor stream_;
  std::vector<uint8_t> moved_;  // of the stream
};

/// Of the state that the worker saves.
std::vector<uint8_t> whole_state(uint32_t size);

}  // namespace hookline::kernel_test
