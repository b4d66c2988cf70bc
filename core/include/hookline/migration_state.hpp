// SPDX-License-Identifier: Apache-2.0
//
// The migration state machine as data: the states, the single arcs between them, and the way from any to any.
//
// Values and paths are those of the VFIO migration protocol v2, so that a software model walks exactly as the
// kernel does with a real device; test-vectors/migration_arcs.csv holds both to it. docs/state-machine.md has
// the picture. Pure functions and constant data: any thread. Errors: Result, EINVAL with the reason a request
// is refused.
//
//     while (state != target) {
//       Result<MigrationState> next = next_state(state, target, {.p2p = true, .pre_copy = true});
//       if (!next) return fail(next.error());
//       const Arc* arc = find_arc(state, *next);
//       ...                                     // run arc->device, then arc->session
//       state = *next;
//     }
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <hookline/result.hpp>

namespace hookline {

enum class MigrationState : uint32_t {
  error = 0,
  stop = 1,
  running = 2,
  stop_copy = 3,
  resuming = 4,
  running_p2p = 5,
  pre_copy = 6,
  pre_copy_p2p = 7,
};

/// "RUNNING_P2P" and so on, the protocol's spelling; "UNKNOWN" for a value that is none of the eight.
std::string_view to_string(MigrationState state);

struct MigrationCapabilities {
  bool p2p = false;
  bool pre_copy = false;
};

/// What an arc does to the device. A device that cannot tell peer-to-peer DMA apart stops at quiesce, starts
/// at release, and has nothing left to do for stop and start between RUNNING_P2P and STOP.
enum class DeviceAction {
  none,
  quiesce,  ///< no new peer-to-peer DMA; what was begun is complete
  release,  ///< peer-to-peer DMA again
  stop,     ///< no DMA, no interrupt, no change of state; from RUNNING it includes quiesce
  start,    ///< leaves STOP; on the way to RUNNING it includes release
};

/// What an arc does to the data session. The two stream directions never share one.
enum class SessionAction {
  none,
  begin_pre_copy,      ///< a new saving session; the match record is its first bytes
  begin_stop_copy,     ///< a new saving session without PRE_COPY; the match record is its first bytes, too
  continue_stop_copy,  ///< the saving session of PRE_COPY goes on to the final state
  end_save,            ///< closes the saving session, complete or not
  begin_resume,        ///< a new loading session
  commit_resume,       ///< closes it; EINVAL if the stream was not complete (it was applied with its trailer)
};

struct Arc {
  MigrationState from;
  MigrationState to;
  DeviceAction device;    ///< runs first
  SessionAction session;  ///< runs second
};

/// Every single arc, for all capabilities together.
std::span<const Arc> migration_arcs();

/// The single arc between two states, or nullptr if the way between them takes more than one or there is
/// none.
const Arc* find_arc(MigrationState from, MigrationState to);

/// The first hop of the shortest path; `from` itself if from == to. Paths depend on the capabilities:
/// optional states a device does not have are left out, not passed through.
Result<MigrationState> next_state(MigrationState from, MigrationState to, MigrationCapabilities capabilities);

}  // namespace hookline
