// SPDX-License-Identifier: Apache-2.0
#include <hookline/migration_state.hpp>

#include <array>
#include <cerrno>

#include <fmt/format.h>

namespace hookline {

namespace {

using enum MigrationState;
using D = DeviceAction;
using S = SessionAction;

constexpr size_t kStates = 8;

constexpr Arc kArcs[] = {
    {running, running_p2p, D::quiesce, S::none},
    {running_p2p, running, D::release, S::none},
    {running_p2p, stop, D::stop, S::none},
    {stop, running_p2p, D::start, S::none},

    {stop, stop_copy, D::none, S::begin_stop_copy},
    {stop_copy, stop, D::none, S::end_save},
    {stop, resuming, D::none, S::begin_resume},
    {resuming, stop, D::none, S::commit_resume},

    {running, pre_copy, D::none, S::begin_pre_copy},
    {pre_copy, running, D::none, S::end_save},
    {running_p2p, pre_copy_p2p, D::none, S::begin_pre_copy},
    {pre_copy_p2p, running_p2p, D::none, S::end_save},
    {pre_copy, pre_copy_p2p, D::quiesce, S::none},
    {pre_copy_p2p, pre_copy, D::release, S::none},
    {pre_copy_p2p, stop_copy, D::stop, S::continue_stop_copy},

    // These three stand for two arcs each on a device without P2P, and are never used on one with it.
    {running, stop, D::stop, S::none},
    {stop, running, D::start, S::none},
    {pre_copy, stop_copy, D::stop, S::continue_stop_copy},
};
constexpr size_t kFirstArcWithoutP2p = std::size(kArcs) - 3;

constexpr std::array<std::string_view, kStates> kNames = {
    "ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"};

size_t index(MigrationState state) {
  return static_cast<size_t>(state);
}

bool offered(MigrationState state, MigrationCapabilities capabilities) {
  switch (state) {
    case running_p2p:
      return capabilities.p2p;
    case pre_copy:
      return capabilities.pre_copy;
    case pre_copy_p2p:
      return capabilities.p2p && capabilities.pre_copy;
    default:
      return true;
  }
}

// The states that share one saving session.
bool saves(MigrationState state) {
  return state == pre_copy || state == pre_copy_p2p || state == stop_copy;
}

bool usable(const Arc& arc, MigrationState target, MigrationCapabilities capabilities) {
  if (!offered(arc.from, capabilities) || !offered(arc.to, capabilities)) return false;
  if (&arc >= &kArcs[kFirstArcWithoutP2p] && capabilities.p2p) return false;
  // From one saving state to another the session must stay open; any other path must not open one on its way.
  if (saves(arc.from) && saves(target)) return saves(arc.to);
  return !saves(arc.to) || arc.to == target;
}

tl::unexpected<Error> refuse(MigrationState from, MigrationState to, std::string_view reason) {
  return fail(EINVAL, fmt::format("migration state: {} to {}: {}", to_string(from), to_string(to), reason));
}

}  // namespace

std::string_view to_string(MigrationState state) {
  return index(state) < kStates ? kNames[index(state)] : "UNKNOWN";
}

std::span<const Arc> migration_arcs() {
  return kArcs;
}

const Arc* find_arc(MigrationState from, MigrationState to) {
  for (const Arc& arc : kArcs) {
    if (arc.from == from && arc.to == to) return &arc;
  }
  return nullptr;
}

Result<MigrationState> next_state(MigrationState from, MigrationState to,
                                  MigrationCapabilities capabilities) {
  for (const MigrationState state : {from, to}) {
    if (index(state) >= kStates) return refuse(from, to, fmt::format("there is no state {}", index(state)));
    if (!offered(state, capabilities))
      return refuse(from, to, fmt::format("the device does not offer {}", to_string(state)));
  }
  if (from == error) return refuse(from, to, "only a reset of the device leads out of ERROR");
  if (to == error) return refuse(from, to, "ERROR cannot be asked for");
  if (from == to) return from;

  // Shortest ways to `to` from everywhere, found backwards; with eight states it takes at most seven rounds.
  std::array<size_t, kStates> hops;
  hops.fill(kStates);
  hops[index(to)] = 0;
  std::array<MigrationState, kStates> first_hop{};
  for (size_t round = 1; round < kStates; ++round) {
    for (const Arc& arc : kArcs) {
      if (hops[index(arc.to)] == round - 1 && hops[index(arc.from)] > round &&
          usable(arc, to, capabilities)) {
        hops[index(arc.from)] = round;
        first_hop[index(arc.from)] = arc.to;
      }
    }
  }
  if (hops[index(from)] == kStates)
    return refuse(from, to,
                  "a device that has begun to hand over its final state cannot go back to PRE_COPY; "
                  "go to RUNNING first");
  return first_hop[index(from)];
}

}  // namespace hookline
