// SPDX-License-Identifier: Apache-2.0
//
// The fault matrix: every event that may hit a device, in every migration state, and what a user may rely on then. The table
// is data; faults_test.cpp makes each cell happen and checks it, faults_page.cpp prints it as vfio-pci-hooks/docs/fault-matrix.md.
//
// Any thread. Errors: none.
//
//     for (const Row& row : fault_matrix())
//       for (const State state : kStates)
//         if (!row.at(Kind::gpu, state).why_not) drive(row.event, state, row.at(Kind::gpu, state).outcome);
#pragma once

#include <linux/vfio.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace hookline::kernel_test {

enum class State : uint8_t { running, running_p2p, stop, pre_copy, pre_copy_p2p, stop_copy, resuming, error };
inline constexpr std::array kStates = {State::running,      State::running_p2p, State::stop,     State::pre_copy,
                                       State::pre_copy_p2p, State::stop_copy,   State::resuming, State::error};
/// VFIO_DEVICE_STATE_*
uint32_t vfio_state(State state);

/// The device that is hit.
enum class Kind : uint8_t {
  nic,          ///< a VF of an 82576 whose worker knows every lie
  gpu,          ///< a whole display function with the plugin gpu-bochs: bulk, rounds, touched pages; no PF, no FLR
  logging_nic,  ///< the VF with the in-kernel logger, while DMA logging runs
};
inline constexpr std::array kKinds = {Kind::nic, Kind::gpu, Kind::logging_nic};
const char* name_of(Kind kind);

enum class Event : uint8_t {
  worker_killed, worker_stopped, answer_to_wrong_slot, answer_of_wrong_length, answered_twice, answered_late,
  device_reset, flr, sysfs_reset, hot_reset_of_vf, hot_reset_of_function,
  vfs_removed, pf_unbound, vf_unbound, function_removed, vmm_killed, module_unload, no_memory,
  worker_killed_under_drawing, reset_under_drawing,
  file_closed, file_kept, file_shared,
  stream_truncated, stream_flipped, stream_reordered, stream_oversized, stream_foreign, stream_outside,
  dma_logging,
};
/// The name in the page and of the test: "worker_killed".
const char* name_of(Event event);

/// What the device does after the event and before anybody has made up for it.
enum class Device : uint8_t {
  as_before,
  fresh,     ///< was reset, and runs
  half,      ///< of the bulk that was loaded what came is there
  scrubbed,  ///< the reset program has cleared what a refused stream may have left; stopped
  gone,      ///< not open
};

/// Who has to do what before the device is whole: a set.
enum Needs : unsigned {
  kNobody = 0,
  kWorker = 1 << 0,          ///< the supervisor starts the next worker
  kResetToMigrate = 1 << 1,  ///< the guest goes on as it is; ENODATA to a migration until it resets the device
  kResetToRun = 1 << 2,      ///< no arc leads to RUNNING, a reset does
  kOpen = 1 << 3,            ///< a VMM opens the device again
  kBind = 1 << 4,            ///< the administrator binds the function again
  kDefine = 1 << 5,          ///< a new function: it is defined and bound as the first was
};

struct Outcome {
  int error;         ///< errno of the call in hand, 0: it goes on, kNoCall: there is none
  State after;       ///< what GET says
  Device device;
  unsigned needs;
};
inline constexpr int kNoCall = -1;

struct Cell {
  const char* why_not = nullptr;  ///< n/a, and why
  Outcome outcome{};
};

using Cells = std::array<Cell, kStates.size()>;

struct Row {
  Event event;
  const char* what;    ///< how it is brought about
  const char* reason;  ///< why it ends so
  Cells nic;
  std::optional<Cells> gpu = {}, logging_nic = {};  ///< where it is not as on the NIC

  Cell at(Kind kind, State state) const;
};

std::span<const Row> fault_matrix();
/// tests/qemu/faults.py shows this cell with QEMU and a guest in it, too.
bool is_shown_with_qemu(Event event, State state);

/// The page in the repository.
std::string fault_matrix_page();

}  // namespace hookline::kernel_test
