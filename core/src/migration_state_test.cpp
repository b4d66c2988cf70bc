// SPDX-License-Identifier: Apache-2.0
#include <hookline/migration_state.hpp>

#include <fstream>
#include <set>
#include <sstream>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>

namespace hookline {
namespace {

using enum MigrationState;

constexpr MigrationState kAll[] = {error,    stop,        running,  stop_copy,
                                   resuming, running_p2p, pre_copy, pre_copy_p2p};

TEST(MigrationState, HasTheValuesOfTheKernel) {
  EXPECT_EQ(static_cast<int>(error), VFIO_DEVICE_STATE_ERROR);
  EXPECT_EQ(static_cast<int>(stop), VFIO_DEVICE_STATE_STOP);
  EXPECT_EQ(static_cast<int>(running), VFIO_DEVICE_STATE_RUNNING);
  EXPECT_EQ(static_cast<int>(stop_copy), VFIO_DEVICE_STATE_STOP_COPY);
  EXPECT_EQ(static_cast<int>(resuming), VFIO_DEVICE_STATE_RESUMING);
  EXPECT_EQ(static_cast<int>(running_p2p), VFIO_DEVICE_STATE_RUNNING_P2P);
  EXPECT_EQ(static_cast<int>(pre_copy), VFIO_DEVICE_STATE_PRE_COPY);
  EXPECT_EQ(static_cast<int>(pre_copy_p2p), VFIO_DEVICE_STATE_PRE_COPY_P2P);
  EXPECT_EQ(std::size(kAll), static_cast<size_t>(VFIO_DEVICE_STATE_NR));
}

// In the form of the vectors: "STOP>RUNNING_P2P>RUNNING" or "EINVAL".
std::string path(MigrationState from, MigrationState to, MigrationCapabilities capabilities) {
  std::string text(to_string(from));
  Result<MigrationState> next = next_state(from, to, capabilities);
  for (MigrationState state = from; next && *next != state; next = next_state(state, to, capabilities)) {
    EXPECT_NE(find_arc(state, *next), nullptr) << to_string(state) << " to " << to_string(*next);
    state = *next;
    text += '>';
    text += to_string(state);
  }
  if (next) return text;
  EXPECT_EQ(next.error().code, EINVAL);
  EXPECT_EQ(text, to_string(from)) << "refused half way to " << to_string(to);
  return "EINVAL";
}

TEST(MigrationState, WalksAsTheVectorsSay) {
  std::ifstream file(HOOKLINE_MIGRATION_ARCS);
  ASSERT_TRUE(file) << HOOKLINE_MIGRATION_ARCS;
  std::string line;
  std::vector<std::string> expected;
  while (std::getline(file, line)) {
    if (!line.starts_with("#")) expected.push_back(line);
  }
  std::vector<std::string> is = {"from,to,p2p,pre_copy,path"};
  for (const bool p2p : {false, true}) {
    for (const bool pre_copy_too : {false, true}) {
      for (const MigrationState from : kAll) {
        for (const MigrationState to : kAll) {
          std::ostringstream row;
          row << to_string(from) << ',' << to_string(to) << ',' << p2p << ',' << pre_copy_too << ','
              << path(from, to, {.p2p = p2p, .pre_copy = pre_copy_too});
          is.push_back(row.str());
        }
      }
    }
  }
  EXPECT_THAT(is, testing::ElementsAreArray(expected));
}

TEST(MigrationState, RefusesWithAReason) {
  const MigrationCapabilities all{.p2p = true, .pre_copy = true};
  EXPECT_EQ(next_state(error, running, all).error().text,
            "migration state: ERROR to RUNNING: only a reset of the device leads out of ERROR");
  EXPECT_EQ(next_state(running, error, all).error().text,
            "migration state: RUNNING to ERROR: ERROR cannot be asked for");
  EXPECT_EQ(next_state(running, pre_copy, {.p2p = true}).error().text,
            "migration state: RUNNING to PRE_COPY: the device does not offer PRE_COPY");
  EXPECT_EQ(next_state(stop_copy, pre_copy_p2p, all).error().text,
            "migration state: STOP_COPY to PRE_COPY_P2P: a device that has begun to hand over its final "
            "state cannot "
            "go back to PRE_COPY; go to RUNNING first");
  EXPECT_EQ(next_state(stop, static_cast<MigrationState>(8), all).error().text,
            "migration state: STOP to UNKNOWN: there is no state 8");
}

bool saving(MigrationState state) {
  return state == pre_copy || state == pre_copy_p2p || state == stop_copy;
}
bool dma(MigrationState state) {
  return state == running || state == pre_copy;
}
bool quiet(MigrationState state) {
  return state == running_p2p || state == pre_copy_p2p;
}

// What an arc does follows from its two ends; the table says it by hand.
TEST(MigrationState, ArcsDoWhatTheirEndsImply) {
  std::set<std::pair<MigrationState, MigrationState>> seen;
  for (const Arc& arc : migration_arcs()) {
    SCOPED_TRACE(std::string(to_string(arc.from)) + " to " + std::string(to_string(arc.to)));
    EXPECT_TRUE(seen.insert({arc.from, arc.to}).second);
    EXPECT_EQ(find_arc(arc.from, arc.to), &arc);

    const bool was_stopped = !dma(arc.from) && !quiet(arc.from);
    const bool is_stopped = !dma(arc.to) && !quiet(arc.to);
    DeviceAction device = DeviceAction::none;
    if (!was_stopped && is_stopped) device = DeviceAction::stop;
    if (was_stopped && !is_stopped) device = DeviceAction::start;
    if (dma(arc.from) && quiet(arc.to)) device = DeviceAction::quiesce;
    if (quiet(arc.from) && dma(arc.to)) device = DeviceAction::release;
    EXPECT_EQ(arc.device, device);

    SessionAction session = SessionAction::none;
    if (!saving(arc.from) && saving(arc.to))
      session = arc.to == stop_copy ? SessionAction::begin_stop_copy : SessionAction::begin_pre_copy;
    if (saving(arc.from) && !saving(arc.to)) session = SessionAction::end_save;
    if (saving(arc.from) && arc.to == stop_copy) session = SessionAction::continue_stop_copy;
    if (arc.to == resuming) session = SessionAction::begin_resume;
    if (arc.from == resuming) session = SessionAction::commit_resume;
    EXPECT_EQ(arc.session, session);
  }
  EXPECT_EQ(find_arc(running, stop_copy), nullptr);
}

}  // namespace
}  // namespace hookline
