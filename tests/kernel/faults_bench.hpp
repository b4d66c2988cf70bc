// SPDX-License-Identifier: Apache-2.0
//
// The device that the fault matrix hits: a function with a worker and a VFIO client, kept from cell to cell. What is special
// about this function is its Subject's.
//
// Thread rule: one thread. Errors: what prevents a cell from beginning or being made whole throws.
//
//     Bench bench(make_nic());
//     bench.prepare();                 // whole, RUNNING
//     bench.enter(State::pre_copy);    // the stream has begun
//     int error = bench.use();         // the call in hand
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/kernel/faults.hpp"
#include "tests/kernel/faults_subject.hpp"
#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {

/// What a cell must give back.
struct Held {
  int references = 0;   ///< of the module
  size_t files = 0;     ///< of this process
  uint32_t status = 0;  ///< VFIO_PCI_HOOKS_STATUS_*
  bool operator==(const Held&) const = default;
};

class Bench {
 public:
  explicit Bench(std::unique_ptr<Subject> subject);
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Makes it whole, whatever the cell before has left.
  void prepare();
  /// The guest's marks on a device that is whole.
  void mark();
  void enter(State state);
  /// A trapped access, or the next piece of the stream. 0 or errno; there being nothing more for now is none.
  int use();
  /// Of what there is to load.
  bool is_all_loaded() const { return moved_.size() == subject_->to_load().size(); }
  /// From a state where nothing failed: the stream to its end where there is one, and RUNNING.
  void go_on();
  /// All of it, from a device that is whole, while its guest goes on as long as it may.
  void migrate();

  State state() const;
  uint32_t heart() const { return subject_->heart(*guest_); }
  bool is_answered() const { return subject_->is_answered(*guest_, *board_); }
  vfio_pci_hooks_status status() const { return control_.status(address()); }
  Held held() const;
  const std::string& address() const { return subject_->address(); }
  Subject& subject() { return *subject_; }
  const Guest& guest() const { return *guest_; }
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
  void use_up();

  const std::unique_ptr<Subject> subject_;
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

}  // namespace hookline::kernel_test
