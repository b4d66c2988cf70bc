// SPDX-License-Identifier: Apache-2.0
#include "run_state.hpp"

#include <cerrno>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "fake_sysfs.hpp"

namespace hookline::loader {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const PciAddress kVf = *parse_pci_address("0000:01:10.0");
const PciAddress kPf = *parse_pci_address("0000:01:00.0");

DeviceRecord example() {
  return {.device = {.address = kVf,
                     .id = {0x8086, 0x10ca},
                     .pf = kPf,
                     .vf_index = 3,
                     .guest_memory = GuestMemory::read,
                     .on_worker_loss = WorkerLoss::fail,
                     .limits = {std::chrono::seconds(7), std::chrono::milliseconds(20)},
                     .busy_poll = std::chrono::microseconds(50),
                     .chain = {{.name = "trace",
                                .file = "/lib/trace.so",
                                .options = {{"log", {.text = "state-changes", .is_set = true}},
                                            {"depth", {.number = UINT64_MAX, .is_set = true}}}},
                               {.name = "doorbell"}},
                     .migrates = true,
                     .parameters = {{"state_version", "1"}},
                     .allow_untrusted = true,
                     .config_file = "/etc/hookline/nics.yaml",
                     .config_space = "8086:10ca rev 01"},
          .found = {.driver = "igbvf", .driver_override = "vfio-pci"}};
}

class RunStateTest : public testing::Test {
 protected:
  std::filesystem::path folder() const { return host_.root() / "run/hookline"; }
  FakeSysfs host_;
  RunState state_{host_.root()};
};

TEST_F(RunStateTest, LD2_KeepsEverythingThatServingAndGivingBackTake) {
  ASSERT_TRUE(state_.remember(example()));
  const auto read = state_.device(kVf);
  ASSERT_TRUE(read && *read);
  EXPECT_TRUE(same_service((*read)->device, example().device));
  EXPECT_EQ((*read)->device.config_file, "/etc/hookline/nics.yaml");
  EXPECT_EQ((*read)->device.config_space, "8086:10ca rev 01");
  EXPECT_EQ((*read)->device.busy_poll, std::chrono::microseconds(50));
  ASSERT_EQ((*read)->device.parameters.size(), 1u);
  EXPECT_EQ((*read)->device.parameters[0].value, "1");
  EXPECT_EQ((*read)->device.vf_index, 3u);
  EXPECT_EQ((*read)->device.chain[0].options[1].value.number, UINT64_MAX);
  EXPECT_EQ((*read)->device.chain[1].file, "");
  EXPECT_EQ((*read)->found.driver, "igbvf");
  EXPECT_EQ((*read)->found.driver_override, "vfio-pci");
}

TEST_F(RunStateTest, SeesEachDifferenceAWorkerWouldNotice) {
  DeviceRecord other = example();
  other.device.config_file = "/elsewhere.yaml";
  other.device.config_space.clear();
  EXPECT_TRUE(same_service(example().device, other.device));
  other.device.chain[0].options[0].value.text = "all";
  EXPECT_FALSE(same_service(example().device, other.device));
}

TEST_F(RunStateTest, TellsWhatOnlyAWorkerNoticesFromWhatTheKernelDoes) {
  DeviceRecord other = example();
  other.device.busy_poll = std::chrono::microseconds(0);
  EXPECT_FALSE(same_service(example().device, other.device));
  EXPECT_TRUE(same_definition(example().device, other.device));
  other.device.limits.access += std::chrono::milliseconds(1);
  EXPECT_FALSE(same_definition(example().device, other.device));
}

TEST_F(RunStateTest, ReadsARecordFromBeforeBusyPoll) {
  auto written = to_json(example());
  ASSERT_EQ(written["device"].erase("busy_poll_us"), 1u);
  host_.write(folder() / "0000:01:10.0.json", written.dump());
  const auto read = state_.device(kVf);
  ASSERT_TRUE(read && *read);
  DeviceRecord expected = example();
  expected.device.busy_poll = std::chrono::microseconds(0);
  EXPECT_TRUE(same_service((*read)->device, expected.device));
}

TEST_F(RunStateTest, NothingIsNoError) {
  const auto read = state_.device(kVf);
  ASSERT_TRUE(read);
  EXPECT_FALSE(*read);
  EXPECT_TRUE(state_.devices().empty());
  EXPECT_TRUE(state_.forget_device(kVf));
}

TEST_F(RunStateTest, ListsDevicesAndPfsApart) {
  ASSERT_TRUE(state_.remember(example()));
  ASSERT_TRUE(state_.remember(PfRecord{.pf = kPf, .numvfs = 0, .autoprobe = false, .created = 4}));
  ASSERT_TRUE(state_.remember(kVf, ServiceState{.ready = true}));
  ASSERT_TRUE(state_.remember(PfChange{.address = kVf, .found = {.mac = {2, 0, 0, 0, 0, 9}}, .set = {.vlan = 12, .qos = 1}}));
  EXPECT_THAT(state_.devices(), ElementsAre(kVf));
  EXPECT_THAT(state_.pfs(), ElementsAre(kPf));
  EXPECT_FALSE((*state_.pf(kPf))->autoprobe);
  EXPECT_EQ((*state_.pf_change(kVf))->found, (PfSettings{.mac = {2, 0, 0, 0, 0, 9}}));
  EXPECT_EQ((*state_.pf_change(kVf))->set, (PfSettings{.vlan = 12, .qos = 1}));
  ASSERT_TRUE(state_.forget_device(kVf));
  ASSERT_TRUE(state_.forget_pf(kPf));
  EXPECT_TRUE(std::filesystem::is_empty(folder())) << "what is forgotten leaves no file";
}

TEST_F(RunStateTest, RefusesDamagedFilesByName) {
  host_.write(folder() / "0000:01:10.0.json", "{\"schema\": 1, \"device\": {}}");
  const auto read = state_.device(kVf);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, EBADMSG);
  EXPECT_THAT(read.error().text, HasSubstr("0000:01:10.0.json"));
  host_.write(folder() / "0000:01:10.0.json", "{\"schema\": 99}");
  EXPECT_THAT(state_.device(kVf).error().text, HasSubstr("schema 99"));
  host_.write(folder() / "0000:01:10.0.json", "{");
  EXPECT_EQ(state_.device(kVf).error().code, EBADMSG);
}

TEST_F(RunStateTest, OnlyOneApplyAtATime) {
  const auto first = state_.lock();
  ASSERT_TRUE(first);
  EXPECT_EQ(state_.lock().error().code, EBUSY);
}

TEST(ProcessTest, TellsALivingProcessFromADeadOne) {
  EXPECT_TRUE(is_alive(process_of(::getpid())));
  EXPECT_FALSE(is_alive({::getpid(), process_of(::getpid()).start_time + 1})) << "another one with the same number";
  EXPECT_FALSE(is_alive({}));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  const Process process = process_of(child);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(is_alive(process)) << "one that has ended is not alive, also before it is waited for";
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace hookline::loader
