// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <cerrno>

#include <gmock/gmock.h>

namespace hookline::loader {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const PciAddress kVf = *parse_pci_address("0000:01:10.0");

class Recorder final : public StepRunner {
 public:
  std::vector<std::string> log;
  std::vector<std::string> fails;  ///< descriptions of steps that fail

  Result<void> run(const Step& step) override {
    log.push_back(describe(step));
    if (std::find(fails.begin(), fails.end(), log.back()) != fails.end()) return fail(EIO, "broken");
    return {};
  }
};

Group device_group() {
  const auto record = std::make_shared<const DeviceRecord>();
  return {.title = "device",
          .steps = {{.action = Action::remember, .address = kVf, .record = record},
                    {.action = Action::unbind, .address = kVf, .value = "igbvf"},
                    {.action = Action::define, .address = kVf, .record = record},
                    {.action = Action::set_override, .address = kVf, .value = "vfio-pci-hooks"},
                    {.action = Action::bind, .address = kVf, .value = "vfio-pci-hooks"},
                    {.action = Action::serve, .address = kVf, .record = record}}};
}

TEST(PlanTest, LD2_AFailedDeviceIsPutBackStepByStep) {
  Plan plan{.groups = {device_group()}};
  Recorder host;
  host.fails = {"start serving 0000:01:10.0"};
  const auto results = execute(plan, host);
  EXPECT_THAT(host.log, ElementsAre("write down how 0000:01:10.0 was found", "unbind 0000:01:10.0 from igbvf",
                                    "define the chain of 0000:01:10.0",
                                    "0000:01:10.0: change driver_override from none to vfio-pci-hooks",
                                    "bind 0000:01:10.0 to vfio-pci-hooks", "start serving 0000:01:10.0",
                                    // and back
                                    "unbind 0000:01:10.0 from vfio-pci-hooks",
                                    "0000:01:10.0: change driver_override from vfio-pci-hooks to none",
                                    "remove the definition of 0000:01:10.0", "bind 0000:01:10.0 to igbvf",
                                    "forget what was written down about 0000:01:10.0"));
  EXPECT_EQ(results[0].end, GroupResult::End::failed);
  EXPECT_EQ(results[0].error.text, "broken");
  EXPECT_THAT(results[0].not_undone, IsEmpty());
}

TEST(PlanTest, PuttingBackGoesOnPastWhatCannotBePutBack) {
  Plan plan{.groups = {device_group()}};
  Recorder host;
  host.fails = {"start serving 0000:01:10.0", "remove the definition of 0000:01:10.0"};
  const auto results = execute(plan, host);
  EXPECT_EQ(host.log.back(), "forget what was written down about 0000:01:10.0");
  EXPECT_THAT(results[0].not_undone, ElementsAre(HasSubstr("remove the definition of 0000:01:10.0: broken")));
}

TEST(PlanTest, OneDeviceDoesNotStopTheOthers) {
  Plan plan{.groups = {device_group(), device_group()}};
  plan.groups[0].steps[1].value = "other";
  Recorder host;
  host.fails = {"unbind 0000:01:10.0 from other"};
  const auto results = execute(plan, host);
  EXPECT_EQ(results[0].end, GroupResult::End::failed);
  EXPECT_EQ(results[1].end, GroupResult::End::done);
}

TEST(PlanTest, VfsThatNobodyCouldUseGoAgain) {
  Plan plan;
  plan.groups.push_back({.title = "pf",
                         .steps = {{.action = Action::set_numvfs, .address = kVf, .value = "4", .before = "0"}},
                         .only_for_others = true});
  plan.groups.push_back(device_group());
  plan.groups.back().needs = {0};
  Recorder host;
  host.fails = {"define the chain of 0000:01:10.0"};
  execute(plan, host);
  EXPECT_EQ(host.log.back(), "0000:01:10.0: change the number of VFs from 4 to 0");

  Recorder good;
  execute(plan, good);
  EXPECT_EQ(good.log.back(), "start serving 0000:01:10.0");
}

TEST(PlanTest, WhatNeedsAFailedGroupIsNotBegun) {
  Plan plan;
  plan.groups.push_back({.title = "kernel", .steps = {{.action = Action::load_module, .value = "vfio-pci-hooks"}}});
  plan.groups.push_back(device_group());
  plan.groups.back().needs = {0};
  Recorder host;
  host.fails = {"load the kernel module vfio-pci-hooks"};
  const auto results = execute(plan, host);
  EXPECT_EQ(results[1].end, GroupResult::End::skipped);
  EXPECT_EQ(host.log.size(), 1u);
}

// A changed configuration: what is put back is the former chain, not nothing.
TEST(PlanTest, RedefiningIsUndoneByTheFormerDefinition) {
  const auto former = std::make_shared<const DeviceRecord>(), wanted = std::make_shared<const DeviceRecord>();
  for (const Action action : {Action::define, Action::remember}) {
    const auto undo = inverse({.action = action, .address = kVf, .record = wanted, .previous = former});
    ASSERT_TRUE(undo);
    EXPECT_EQ(undo->action, action);
    EXPECT_EQ(undo->record, former);
  }
}

TEST(PlanTest, UndoingTwiceIsDoing) {
  const auto record = std::make_shared<const DeviceRecord>();
  for (const Step& step :
       {Step{.action = Action::set_autoprobe, .address = kVf, .value = "0", .before = "1"},
        Step{.action = Action::set_numvfs, .address = kVf, .value = "4", .before = "0"},
        Step{.action = Action::set_override, .address = kVf, .value = "a", .before = "b"},
        Step{.action = Action::bind, .address = kVf, .value = "igbvf"},
        Step{.action = Action::stop_serving, .address = kVf, .record = record},
        Step{.action = Action::forget, .address = kVf, .previous = record},
        Step{.action = Action::undefine, .address = kVf, .previous = record},
        Step{.action = Action::remember_pf, .address = kVf, .pf_record = PfRecord{}}}) {
    const auto undo = inverse(step);
    ASSERT_TRUE(undo) << describe(step);
    EXPECT_NE(describe(*undo), describe(step));
    EXPECT_EQ(describe(*inverse(*undo)), describe(step));
  }
}

}  // namespace
}  // namespace hookline::loader
