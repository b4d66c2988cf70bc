// SPDX-License-Identifier: Apache-2.0
#include "planner.hpp"

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>

#include <gmock/gmock.h>

#include "fake_sysfs.hpp"

namespace hookline::loader {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

PciAddress at(const std::string& text) { return *parse_pci_address(text); }

class FakeFacts final : public HostFacts {
 public:
  bool loaded = true, available = true;
  bool orphaned = false;  ///< workers are there, their supervisors are not
  std::map<PciAddress, uint32_t> flags;  ///< VFIO_PCI_HOOKS_STATUS_*, of what has a definition
  std::vector<PciAddress> served_devices;
  std::map<std::string, std::vector<std::string>> group_holders;
  std::optional<PfSettings> on_pf;

  bool module_loaded() const override { return loaded; }
  bool module_available() const override { return available; }
  std::optional<vfio_pci_hooks_status> status(const PciAddress& address) const override {
    const auto found = flags.find(address);
    if (found == flags.end()) return std::nullopt;
    vfio_pci_hooks_status status{};
    status.flags = found->second;
    return status;
  }
  bool supervised(const PciAddress& address) const override { return served(address) && !orphaned; }
  bool served(const PciAddress& address) const override {
    return std::find(served_devices.begin(), served_devices.end(), address) != served_devices.end();
  }
  std::vector<std::string> holders(const PciFunction& function) const override {
    const auto found = group_holders.find(function.iommu_group);
    return found == group_holders.end() ? std::vector<std::string>{} : found->second;
  }
  std::optional<PfSettings> pf_settings(const AppliedDevice&) const override { return on_pf; }
  std::vector<std::string> lacking(const AppliedDevice&) const override { return {}; }
};

class PlannerTest : public testing::Test {
 protected:
  PlannerTest() {
    host_.driver(kDriver);
    host_.pf("0000:01:00.0", "igb", 2);
    host_.netdev("0000:01:00.0", "enp1s0f0");
    host_.function("0000:00:04.0", "1234:1111", "bochs-drm", "3");
  }

  static DeviceConfig device(const std::string& address) {
    DeviceConfig device;
    device.match.address = at(address);
    device.match.where = {3, 5, 1};
    device.chain.push_back({.name = "doorbell", .plugin = nullptr, .options = {}, .where = {4, 1, 1}});
    return device;
  }
  static DeviceConfig vfs(const std::string& pf, std::vector<uint32_t> indexes) {
    DeviceConfig config = device("0000:00:00.0");
    config.match.address.reset();
    config.match.pf = pf;
    config.match.vfs = std::move(indexes);
    return config;
  }

  Plan plan(std::vector<DeviceConfig> devices) {
    diagnostics_ = {};
    Config config;
    config.devices = std::move(devices);
    return plan_apply(config, {.config_file = "/etc/hookline/test.yaml"}, Sysfs(host_.root()), state_, facts_, diagnostics_);
  }
  std::vector<std::string> steps(const Plan& plan) const {
    std::vector<std::string> lines;
    for (const Group& group : plan.groups)
      for (const Step& step : group.steps) lines.push_back(describe(step));
    return lines;
  }
  std::string error() const { return diagnostics_.errors() ? diagnostics_.sorted().front().text : ""; }
  std::string hint() const { return diagnostics_.errors() ? diagnostics_.sorted().front().hint : ""; }

  /// The plan has been executed: what it wrote down is there, the device is bound and served.
  void pretend_applied(const Plan& plan) {
    for (const Group& group : plan.groups)
      for (const Step& step : group.steps) {
        if (step.action == Action::remember) { ASSERT_TRUE(state_.remember(*step.record)); }
        if (step.action == Action::remember_pf) { ASSERT_TRUE(state_.remember(*step.pf_record)); }
        if (step.action == Action::bind) host_.bind(to_string(step.address), step.value);
        if (step.action == Action::set_override) host_.write(host_.device(to_string(step.address)) / "driver_override", step.value);
        if (step.action == Action::define) facts_.flags[step.address] = VFIO_PCI_HOOKS_STATUS_BOUND;
        if (step.action == Action::serve) facts_.served_devices.push_back(step.address);
      }
  }
  std::vector<std::string> detach_steps(const std::string& address) {
    const DetachPlan detach = plan_detach({at(address)}, Sysfs(host_.root()), state_, facts_);
    EXPECT_THAT(detach.problems, IsEmpty());
    return steps(detach.plan);
  }

  FakeSysfs host_;
  RunState state_{host_.root()};
  FakeFacts facts_;
  Diagnostics diagnostics_;
};

TEST_F(PlannerTest, LD2_TakesAVfFromItsDriverAndWritesDownFirst) {
  host_.bind("0000:01:10.0", "igbvf");
  host_.netdev("0000:01:10.0", "enp1s0v0");
  const Plan p = plan({vfs("enp1s0f0", {0})});
  EXPECT_EQ(error(), "");
  EXPECT_THAT(steps(p), ElementsAre("write down how 0000:01:10.0 was found", "unbind 0000:01:10.0 from igbvf (enp1s0v0 goes away)",
                                    "define the chain of 0000:01:10.0",
                                    "0000:01:10.0: change driver_override from none to vfio-pci-hooks",
                                    "bind 0000:01:10.0 to vfio-pci-hooks", "start serving 0000:01:10.0"));
}

TEST_F(PlannerTest, LD2_ApplyingTwiceChangesNothing) {
  pretend_applied(plan({vfs("0000:01:00.0", {0, 1})}));
  const Plan again = plan({vfs("0000:01:00.0", {0, 1})});
  EXPECT_TRUE(again.empty());
  EXPECT_THAT(again.unchanged, ElementsAre("0000:01:10.0 (VF 0 of 0000:01:00.0)", "0000:01:10.2 (VF 1 of 0000:01:00.0)"));
}

TEST_F(PlannerTest, AServiceThatHasEndedIsStartedAgain) {
  pretend_applied(plan({device("0000:01:10.0")}));
  facts_.served_devices.clear();
  EXPECT_THAT(steps(plan({device("0000:01:10.0")})), ElementsAre("start serving 0000:01:10.0"));
}

TEST_F(PlannerTest, RL5_AWorkerLeftBehindGetsASupervisorAgain) {
  pretend_applied(plan({device("0000:01:10.0")}));
  facts_.orphaned = true;
  EXPECT_THAT(steps(plan({device("0000:01:10.0")})), ElementsAre("start serving 0000:01:10.0"));
}

TEST_F(PlannerTest, AChangedDeviceIsDefinedAgainAndKeepsWhatWasFound) {
  host_.bind("0000:01:10.0", "igbvf");
  pretend_applied(plan({device("0000:01:10.0")}));
  DeviceConfig changed = device("0000:01:10.0");
  changed.on_worker_loss = WorkerLoss::fail;
  const Plan p = plan({changed});
  EXPECT_THAT(steps(p), ElementsAre("stop serving 0000:01:10.0", "write down how 0000:01:10.0 was found",
                                    "unbind 0000:01:10.0 from vfio-pci-hooks", "define the chain of 0000:01:10.0",
                                    "bind 0000:01:10.0 to vfio-pci-hooks", "start serving 0000:01:10.0"));
  EXPECT_EQ(p.groups[1].steps[0].record->found.driver, "igbvf");
}

// ---- migration parameters

/// A plugin with one parameter, as far as a plan needs it.
class PlannerParameterTest : public PlannerTest {
 protected:
  DeviceConfig migrating(const std::string& queues, const char* allowed = "1-8") {
    parameter_.allowed_values = allowed;
    hookline_plugin plugin{};
    plugin.abi = {HOOKLINE_ABI_MAGIC, HOOKLINE_ABI_MAJOR, HOOKLINE_ABI_MINOR, sizeof plugin, 0, 0};
    plugin.name = "p", plugin.model = "com.example/p", plugin.migration_version = "1";
    plugin.claims = HOOKLINE_CLAIM_MIGRATION, plugin.max_state = 1;
    plugin.ops_known = HOOKLINE_OPS_KNOWN;
    plugin.open = [](auto...) { return 0; }, plugin.close = [](void*) {};
    plugin.save = [](auto...) { return 0; }, plugin.load = [](auto...) { return 0; }, plugin.apply = [](auto...) { return 0; };
    plugin.parameters = &parameter_, plugin.nr_parameters = 1;
    DeviceConfig config = device("0000:01:10.0");
    config.plugins = *build_chain({*make_link(plugin)});
    config.parameters = {queues};
    return config;
  }
  void somebody_writes(const std::string& value) {
    host_.write(host_.device("0000:01:10.0") / "migration/queues/value", value);
    host_.write(host_.device("0000:01:10.0") / "migration/model", "com.example/p");
  }
  static const Step& define_of(const Plan& plan) {
    for (const Step& step : plan.groups.back().steps)
      if (step.action == Action::define) return step;
    throw std::logic_error("nothing is defined");
  }

  hookline_parameter parameter_{"queues", "Queues", "1", "1", "1-8", 0, 0};
};

TEST_F(PlannerParameterTest, MM3_TheConfiguredValueIsDefinedFirst) {
  const Plan first = plan({migrating("4")});
  const Step& step = define_of(first);
  ASSERT_EQ(step.record->device.parameters.size(), 1u);
  EXPECT_EQ(step.record->device.parameters[0].value, "4");
  EXPECT_THAT(step.kept, IsEmpty());
}

TEST_F(PlannerParameterTest, ARecordWithoutConfigurationSpaceGetsIt) {
  pretend_applied(plan({migrating("4")}));
  EXPECT_EQ(plan({migrating("4")}).unchanged.size(), 1u) << "it cannot be read: once more would help nobody";
  const std::string config(256, '\0');
  std::ofstream(host_.device("0000:01:10.0") / "config", std::ios::binary) << config;
  // The guest needs its worker.
  facts_.flags[at("0000:01:10.0")] |= VFIO_PCI_HOOKS_STATUS_OPEN;
  EXPECT_EQ(plan({migrating("4")}).unchanged.size(), 1u);
  facts_.flags[at("0000:01:10.0")] = VFIO_PCI_HOOKS_STATUS_BOUND;
  EXPECT_THAT(steps(plan({migrating("4")})), ElementsAre("stop serving 0000:01:10.0", "write down how 0000:01:10.0 was found",
                                                         "start serving 0000:01:10.0"));
  DeviceRecord record = **state_.device(at("0000:01:10.0"));
  record.device.config_space = "8086:10ca";
  ASSERT_TRUE(state_.remember(record));
  EXPECT_EQ(plan({migrating("4")}).unchanged.size(), 1u);
}

TEST_F(PlannerParameterTest, ApplyNeverOverwritesAValueWrittenSince) {
  pretend_applied(plan({migrating("4")}));
  somebody_writes("7");
  EXPECT_EQ(plan({migrating("4")}).unchanged.size(), 1u) << "the same file: nothing to do";
  const Plan again = plan({migrating("5")});
  const Step& step = define_of(again);
  ASSERT_EQ(step.kept.size(), 1u);
  EXPECT_EQ(step.kept[0].value, "7");
  EXPECT_THAT(describe(step), HasSubstr("queues stays 7"));
}

TEST_F(PlannerParameterTest, AValueNobodyWroteFollowsTheFile) {
  pretend_applied(plan({migrating("4")}));
  somebody_writes("4");
  const Plan again = plan({migrating("5")});
  EXPECT_THAT(define_of(again).kept, IsEmpty());
}

TEST_F(PlannerParameterTest, AWrittenValueThatIsNotAllowedAnyMoreIsSaid) {
  pretend_applied(plan({migrating("4")}));
  somebody_writes("7");
  const Plan again = plan({migrating("2", "1-4")});
  EXPECT_THAT(define_of(again).kept, IsEmpty());
  EXPECT_THAT(again.notes, Contains(HasSubstr("\"7\" of migration parameter \"queues\"")));
}

TEST_F(PlannerTest, AChangedDeviceInUseIsRefused) {
  pretend_applied(plan({device("0000:01:10.0")}));
  facts_.group_holders["10"] = {"qemu-system-x86 (process 812)"};
  DeviceConfig changed = device("0000:01:10.0");
  changed.on_worker_loss = WorkerLoss::fail;
  plan({changed});
  EXPECT_THAT(error(), HasSubstr("in use by qemu-system-x86 (process 812)"));
  EXPECT_TRUE(plan({device("0000:01:10.0")}).empty()) << "unchanged it may stay in use";
}

TEST_F(PlannerTest, AChangedBusyPollTakesAnotherWorkerAndNoRebind) {
  pretend_applied(plan({device("0000:01:10.0")}));
  DeviceConfig changed = device("0000:01:10.0");
  changed.busy_poll = std::chrono::microseconds(50);
  const Plan p = plan({changed});
  EXPECT_THAT(steps(p), ElementsAre("stop serving 0000:01:10.0", "write down how 0000:01:10.0 was found", "start serving 0000:01:10.0"));
  pretend_applied(p);
  EXPECT_EQ((*state_.device(at("0000:01:10.0")))->device.busy_poll, std::chrono::microseconds(50));
  EXPECT_EQ(plan({changed}).unchanged.size(), 1u);
}

TEST_F(PlannerTest, AChangedBusyPollOfADeviceThatNobodyServesIsWrittenDown) {
  pretend_applied(plan({device("0000:01:10.0")}));
  facts_.served_devices.clear();
  DeviceConfig changed = device("0000:01:10.0");
  changed.busy_poll = std::chrono::microseconds(50);
  EXPECT_THAT(steps(plan({changed})), ElementsAre("write down how 0000:01:10.0 was found", "start serving 0000:01:10.0"));
}

TEST_F(PlannerTest, AChangedBusyPollLeavesTheWorkerOfAGuestAlone) {
  pretend_applied(plan({device("0000:01:10.0")}));
  facts_.flags[at("0000:01:10.0")] |= VFIO_PCI_HOOKS_STATUS_OPEN;
  DeviceConfig changed = device("0000:01:10.0");
  changed.busy_poll = std::chrono::microseconds(50);
  EXPECT_TRUE(plan({changed}).empty());
  EXPECT_THAT(error(), HasSubstr("0000:01:10.0 is in use by a process"));
}

TEST_F(PlannerTest, ABusyPollThatCannotBeServedIsTakenBackBeforeTheWorkerStartsAgain) {
  pretend_applied(plan({device("0000:01:10.0")}));
  DeviceConfig changed = device("0000:01:10.0");
  changed.busy_poll = std::chrono::microseconds(50);
  struct Runner final : StepRunner {
    std::vector<Step> ran;
    Result<void> run(const Step& step) override {
      ran.push_back(step);
      if (step.action == Action::serve && ran.size() == 3) return fail(EIO, "no worker");
      return {};
    }
  } runner;
  execute(plan({changed}), runner);
  ASSERT_EQ(runner.ran.size(), 5u);
  EXPECT_EQ(runner.ran[3].action, Action::remember);
  EXPECT_EQ(runner.ran[3].record->device.busy_poll, std::chrono::microseconds(0));
  EXPECT_EQ(runner.ran[4].action, Action::serve);
}

TEST_F(PlannerTest, AChangeThatCannotBeBoundIsTakenBackBeforeTheWorkerStartsAgain) {
  pretend_applied(plan({device("0000:01:10.0")}));
  DeviceConfig changed = device("0000:01:10.0");
  changed.on_worker_loss = WorkerLoss::fail;
  struct Runner final : StepRunner {
    std::vector<Step> ran;
    Result<void> run(const Step& step) override {
      ran.push_back(step);
      if (step.action == Action::bind && step.record == nullptr && ran.size() == 5) return fail(EIO, "no driver");
      return {};
    }
  } runner;
  execute(plan({changed}), runner);
  const auto last = [&](Action action) {
    return std::find_if(runner.ran.rbegin(), runner.ran.rend(), [&](const Step& step) { return step.action == action; });
  };
  ASSERT_EQ(last(Action::serve), runner.ran.rbegin()) << "the worker is there again, after everything else";
  ASSERT_LT(last(Action::remember), runner.ran.rend());
  EXPECT_EQ(last(Action::remember)->record->device.on_worker_loss, WorkerLoss::pass);
}

TEST_F(PlannerTest, LD2_CreatesVfsWithoutLettingDriversProbeThem) {
  host_.pf("0000:05:00.0", "igb", 0);
  DeviceConfig config = vfs("0000:05:00.0", {1});
  config.create_vfs = 2;
  const Plan p = plan({config});
  EXPECT_EQ(error(), "");
  const auto lines = steps(p);
  ASSERT_GE(lines.size(), 6u);
  EXPECT_THAT(std::vector<std::string>(lines.begin(), lines.begin() + 5),
              ElementsAre("write down how 0000:05:00.0 was found", "0000:05:00.0: do not look for drivers for new VFs",
                          "0000:05:00.0: change the number of VFs from 0 to 2", "0000:05:00.0: look again for drivers for new VFs",
                          "wait for 0000:05:10.2 to appear"));
  EXPECT_EQ(p.groups.back().steps[1].record->device.id, (PciId{0x8086, 0x10ca}));
}

TEST_F(PlannerTest, AKilledRunLeavesAutoprobeToTheNextOne) {
  ASSERT_TRUE(state_.remember(PfRecord{.pf = at("0000:01:00.0"), .numvfs = 0, .autoprobe = true, .created = 2}));
  host_.write(host_.device("0000:01:00.0") / "sriov_drivers_autoprobe", "0");
  EXPECT_THAT(steps(plan({vfs("0000:01:00.0", {0})})), Contains("0000:01:00.0: look again for drivers for new VFs"));
}

TEST_F(PlannerTest, AKilledRunDoesNotChangeWhatWasFound) {
  host_.bind("0000:01:10.0", "igbvf");
  const Plan first = plan({device("0000:01:10.0")});
  ASSERT_TRUE(state_.remember(*first.groups[1].steps[0].record));
  host_.bind("0000:01:10.0", "");  // killed after the second step
  const Plan next = plan({device("0000:01:10.0")});
  EXPECT_EQ(next.groups[1].steps[0].record->found.driver, "igbvf");
  EXPECT_THAT(detach_steps("0000:01:10.0"),
              ElementsAre("bind 0000:01:10.0 to igbvf", "forget what was written down about 0000:01:10.0"));
}

TEST_F(PlannerTest, LD2_WhatAPluginsRequestChangedOnThePfIsPutBackBeforeADriverSeesIt) {
  host_.bind("0000:01:10.2", "igbvf");
  pretend_applied(plan({device("0000:01:10.2")}));
  PfChange change{.address = at("0000:01:10.2"), .found = {.mac = {2, 0, 0, 0, 0, 0x99}, .vlan = 7}, .set = {.mac = {2, 0, 0, 0, 0, 1}}};
  ASSERT_TRUE(state_.remember(change));
  facts_.on_pf = change.set;
  EXPECT_THAT(detach_steps("0000:01:10.2"),
              ElementsAre("stop serving 0000:01:10.2", "unbind 0000:01:10.2 from vfio-pci-hooks",
                          "remove the definition of 0000:01:10.2",
                          "0000:01:10.2: set the address 02:00:00:00:00:99 on its PF again",
                          "0000:01:10.2: set VLAN 7 on its PF again",
                          "0000:01:10.2: change driver_override from vfio-pci-hooks to none", "bind 0000:01:10.2 to igbvf",
                          "forget what was written down about 0000:01:10.2"));
  facts_.on_pf.reset();
  EXPECT_THAT(detach_steps("0000:01:10.2"), Not(Contains(HasSubstr("on its PF")))) << "a PF without its driver has no settings";
}

struct Refusal {
  const char* name;
  std::function<DeviceConfig(FakeSysfs&, FakeFacts&)> arrange;
  const char* text;
};
class RefusalTest : public PlannerTest, public testing::WithParamInterface<Refusal> {
 public:
  using PlannerTest::device;
  using PlannerTest::vfs;
};

TEST_P(RefusalTest, BeforeAnythingIsTouched) {
  plan({GetParam().arrange(host_, facts_)});
  EXPECT_THAT(error(), HasSubstr(GetParam().text));
  EXPECT_EQ(diagnostics_.errors(), 1u);
}

INSTANTIATE_TEST_SUITE_P(
    LD3, RefusalTest,
    testing::Values(
        Refusal{"WholeFunctionWithItsOwnDriver", [](FakeSysfs&, FakeFacts&) { return RefusalTest::device("0000:00:04.0"); },
                "its own driver bochs-drm has"},
        Refusal{"PfWithVfsEvenIfAskedFor",
                [](FakeSysfs&, FakeFacts&) {
                  DeviceConfig config = RefusalTest::device("0000:01:00.0");
                  config.whole_function = true;
                  return config;
                },
                "its driver serves them and stays bound"},
        Refusal{"Absent", [](FakeSysfs&, FakeFacts&) { return RefusalTest::device("0000:07:00.0"); }, "no PCI function 0000:07:00.0"},
        Refusal{"AnotherDeviceThanNamed",
                [](FakeSysfs&, FakeFacts&) {
                  DeviceConfig config = RefusalTest::device("0000:01:10.0");
                  config.match.id = PciId{0x15b3, 0x101e};
                  return config;
                },
                "is 8086:10ca, not 15b3:101e"},
        Refusal{"InUse",
                [](FakeSysfs&, FakeFacts& facts) {
                  facts.group_holders["10"] = {"qemu-system-x86 (process 812)"};
                  return RefusalTest::device("0000:01:10.0");
                },
                "in use by qemu-system-x86 (process 812)"},
        Refusal{"NoIommu",
                [](FakeSysfs& host, FakeFacts&) {
                  host.function("0000:00:06.0", "1234:1111", "", "");
                  return RefusalTest::device("0000:00:06.0");
                },
                "no IOMMU group"},
        Refusal{"NoSuchVf", [](FakeSysfs&, FakeFacts&) { return RefusalTest::vfs("enp1s0f0", {2}); }, "has no VF 2"},
        Refusal{"MoreVfsThanThereAre",
                [](FakeSysfs&, FakeFacts&) {
                  DeviceConfig config = RefusalTest::vfs("enp1s0f0", {0});
                  config.create_vfs = 4;
                  return config;
                },
                "has 2 VFs already, and 4 are wanted"},
        Refusal{"MoreVfsThanTheDeviceHas",
                [](FakeSysfs&, FakeFacts&) {
                  DeviceConfig config = RefusalTest::vfs("enp1s0f0", {0});
                  config.create_vfs = 9;
                  return config;
                },
                "at most 8 VFs"},
        Refusal{"NoSuchInterface", [](FakeSysfs&, FakeFacts&) { return RefusalTest::vfs("eth9", {0}); }, "\"eth9\""},
        Refusal{"NoSriov", [](FakeSysfs&, FakeFacts&) { return RefusalTest::vfs("0000:00:04.0", {0}); }, "has no SR-IOV"},
        Refusal{"NoModule",
                [](FakeSysfs&, FakeFacts& facts) {
                  facts.available = facts.loaded = false;
                  return RefusalTest::device("0000:01:10.0");
                },
                "module vfio-pci-hooks is not installed"}),
    [](const auto& test) { return test.param.name; });

TEST_F(PlannerTest, LD3_WholeFunctionOnlyWhereTheFileSaysSo) {
  DeviceConfig config = device("0000:00:04.0");
  config.whole_function = true;
  EXPECT_THAT(steps(plan({config})), Contains("unbind 0000:00:04.0 from bochs-drm"));
  EXPECT_EQ(error(), "");
}

TEST_F(PlannerTest, LD3_NoPlanTouchesThePfsDriver) {
  for (const auto& line : steps(plan({vfs("enp1s0f0", {0, 1})}))) {
    EXPECT_THAT(line, Not(HasSubstr("unbind 0000:01:00.0")));
    EXPECT_THAT(line, Not(HasSubstr("bind 0000:01:00.0")));
  }
}

TEST_F(PlannerTest, RefusesOneFunctionTwice) {
  plan({vfs("enp1s0f0", {0}), device("0000:01:10.0")});
  EXPECT_THAT(error(), HasSubstr("matched twice"));
}

TEST_F(PlannerTest, LD2_DetachIsApplyBackwards) {
  host_.bind("0000:01:10.0", "igbvf");
  host_.write(host_.device("0000:01:10.0") / "driver_override", "igbvf");
  pretend_applied(plan({device("0000:01:10.0")}));
  EXPECT_THAT(detach_steps("0000:01:10.0"),
              ElementsAre("stop serving 0000:01:10.0", "unbind 0000:01:10.0 from vfio-pci-hooks",
                          "remove the definition of 0000:01:10.0",
                          "0000:01:10.0: change driver_override from vfio-pci-hooks to igbvf", "bind 0000:01:10.0 to igbvf",
                          "forget what was written down about 0000:01:10.0"));
}

TEST_F(PlannerTest, LD2_DetachingTwiceChangesNothing) {
  const DetachPlan detach = plan_detach({at("0000:01:10.0")}, Sysfs(host_.root()), state_, facts_);
  EXPECT_TRUE(detach.plan.empty());
  EXPECT_THAT(detach.problems, IsEmpty());
}

TEST_F(PlannerTest, DetachingADeviceInUseIsRefusedWithItsHolder) {
  pretend_applied(plan({device("0000:01:10.0")}));
  facts_.group_holders["10"] = {"qemu-system-x86 (process 812)"};
  const DetachPlan detach = plan_detach({at("0000:01:10.0")}, Sysfs(host_.root()), state_, facts_);
  EXPECT_TRUE(detach.plan.empty());
  ASSERT_EQ(detach.problems.size(), 1u);
  EXPECT_THAT(detach.problems[0].text, HasSubstr("qemu-system-x86 (process 812) (VFIO group 10)"));
}

TEST_F(PlannerTest, CreatedVfsGoWithTheLastDeviceAndOnlyIfNobodyHasOne) {
  ASSERT_TRUE(state_.remember(PfRecord{.pf = at("0000:01:00.0"), .numvfs = 0, .autoprobe = true, .created = 2}));
  pretend_applied(plan({vfs("enp1s0f0", {0, 1})}));
  const char* gone = "0000:01:00.0: change the number of VFs from 2 to 0";
  EXPECT_THAT(detach_steps("0000:01:10.0"), Not(Contains(gone))) << "the other VF is still set up";
  ASSERT_TRUE(state_.forget_device(at("0000:01:10.2")));
  EXPECT_THAT(detach_steps("0000:01:10.0"), Not(Contains(gone))) << "the other VF is bound, whoever did it";
  host_.bind("0000:01:10.2", "");
  EXPECT_THAT(detach_steps("0000:01:10.0"), Contains(gone));
}

TEST_F(PlannerTest, AFunctionThatIsGoneIsForgotten) {
  pretend_applied(plan({device("0000:01:10.2")}));
  std::filesystem::remove_all(host_.device("0000:01:10.2"));
  facts_.flags.clear();
  facts_.served_devices.clear();
  EXPECT_THAT(detach_steps("0000:01:10.2"), ElementsAre("forget what was written down about 0000:01:10.2"));
}

}  // namespace
}  // namespace hookline::loader
