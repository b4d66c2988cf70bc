// SPDX-License-Identifier: Apache-2.0
//
// What `hookline compat` does with devices: a fake /sys and the loader's own record stand for the host.
#include <cerrno>
#include <csignal>
#include <fstream>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <hookline/chain_descriptor.hpp>
#include <nlohmann/json.hpp>

#include "compat_prepare.hpp"
#include "compat_report.hpp"
#include "compat_side.hpp"
#include "device_chain.hpp"
#include "fake_sysfs.hpp"
#include "linux_host.hpp"

namespace hookline::loader {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string kPluginVersion = "2.0";

Descriptor device(std::string version_now = "2") {
  return {.model = "com.example/toy",
          .plugin = "toy",
          .plugin_version = kPluginVersion,
          .emits = version_now,
          .reads = std::vector<std::string>{"1", "2"},
          .capabilities = {"stop_copy", "p2p", "pre_copy"},
          .parameters = {{.name = "state_version", .value = version_now, .init_value = "2", .off_value = "1",
                          .allowed_values = "1|2", .runtime = true, .version = true},
                         {.name = "queues", .value = "1", .init_value = "1", .off_value = "1", .allowed_values = "1-8"}}};
}

// ---- a device on this host

class CompatDevice : public testing::Test {
 protected:
  CompatDevice() {
    host_.function(kName, "1234:0001", "vfio-pci-hooks", "7");
    record_ = set_up(kName);
  }
  /// As apply and a worker leave it.
  DeviceRecord set_up(const std::string& name) {
    AppliedDevice applied{.address = *parse_pci_address(name), .id = {0x1234, 1}, .migrates = true, .allow_untrusted = true};
    applied.chain.push_back({.name = "params-toy", .file = HOOKLINE_TOYS "/params-toy.so"});
    EXPECT_TRUE(compat_.state.remember(DeviceRecord{applied, {}}));
    const auto chain = load_chain(applied, false);
    EXPECT_TRUE(chain) << chain.error().text;
    values_ = chain->init_values();
    for (size_t i = 0; i < values_.size(); ++i)
      host_.write(host_.device(name) / "migration" / chain->parameters()[i].name / "value", values_[i]);
    version_ = *migration_version(*chain, values_, "");
    host_.write(host_.device(name) / "migration_version", version_);
    return {applied, {}};
  }
  void set(const std::string& name, const std::string& value) {
    host_.write(host_.device(kName) / "migration" / name / "value", value);
  }

  static constexpr const char* kName = "0000:01:10.0";
  const PciAddress address_ = *parse_pci_address(kName);
  FakeSysfs host_;
  Result<bool> open_ = false;
  CompatHost compat_{Sysfs(host_.root()), RunState(host_.root()), [this](const PciAddress&) { return open_; }};
  DeviceRecord record_;
  std::vector<std::string> values_;
  std::string version_;
};

TEST_F(CompatDevice, MV1_a_source_is_its_migration_version) {
  const auto source = describe_source(kName, compat_);
  ASSERT_TRUE(source);
  EXPECT_EQ(*migration_version(source->descriptor), version_);
}

TEST_F(CompatDevice, MV4_a_destination_is_what_its_worker_says_it_is) {
  const auto dest = describe_device(address_, compat_);
  ASSERT_TRUE(dest) << dest.error().reason.text;
  EXPECT_EQ(*migration_version(dest->descriptor), version_);
  EXPECT_THAT(*dest->descriptor.reads, ElementsAre("1", "2"));
  EXPECT_EQ(check_compatibility(describe_source(kName, compat_)->descriptor, dest->descriptor).answer, Answered::yes);
}

TEST_F(CompatDevice, MM7_a_virtual_function_and_a_whole_one_are_asked_alike) {
  host_.pf("0000:02:00.0", "igb", 1);
  const std::string vf = "0000:02:10.0";
  set_up(vf);
  const auto there = describe_source(vf, compat_);
  const auto here = describe_device(address_, compat_);
  ASSERT_TRUE(there && here);
  EXPECT_EQ(check_compatibility(there->descriptor, here->descriptor).answer, Answered::yes);
  EXPECT_TRUE(describe_device(*parse_pci_address(vf), compat_));
}

TEST_F(CompatDevice, MV4_a_worker_that_answers_otherwise_than_its_files_is_not_believed) {
  set("state_version", "1");  // and the worker still says 2
  const auto dest = describe_device(address_, compat_);
  ASSERT_FALSE(dest);
  EXPECT_EQ(dest.error().code, kUnknown);
  EXPECT_THAT(dest.error().reason.text, HasSubstr("replaced since it was started"));
}

TEST_F(CompatDevice, MV4_a_value_written_while_it_is_read_replaces_no_plugin) {
  set("state_version", "1");
  compat_.is_open = [this](const PciAddress&) {
    set("state_version", "2");  // after it was read
    return open_;
  };
  const auto dest = describe_device(address_, compat_);
  ASSERT_TRUE(dest) << dest.error().reason.text;
  EXPECT_EQ(dest->descriptor.emits, "2");
}

TEST_F(CompatDevice, MV3_no_attribute_means_not_compatible) {
  std::filesystem::remove(host_.device(kName) / "migration_version");
  for (const auto& code : {describe_device(address_, compat_).error().code, describe_source(kName, compat_).error().code})
    EXPECT_EQ(code, kNo);
  EXPECT_EQ(describe_source("0000:77:00.0", compat_).error().code, kNo);
}

TEST_F(CompatDevice, MV3_a_failing_read_means_not_compatible) {
  std::filesystem::remove(host_.device(kName) / "migration_version");
  std::filesystem::create_directory(host_.device(kName) / "migration_version");
  const auto source = describe_source(kName, compat_);
  ASSERT_FALSE(source);
  EXPECT_EQ(source.error().code, kNo);
  EXPECT_THAT(source.error().reason.text, HasSubstr("does not answer"));
}

TEST_F(CompatDevice, a_device_of_somebody_else_is_unknown) {
  ASSERT_TRUE(compat_.state.forget_device(address_));
  EXPECT_EQ(describe_device(address_, compat_).error().code, kUnknown);
  host_.write(host_.device(kName) / "migration_version", "acme-7");
  EXPECT_EQ(describe_source(kName, compat_).error().code, kUnknown);
}

TEST_F(CompatDevice, the_fingerprint_of_configuration_space_is_the_records) {
  record_.device.config_space = "1234:0001 rev 02";
  ASSERT_TRUE(compat_.state.remember(record_));
  const auto chain = load_chain(record_.device, false);
  host_.write(host_.device(kName) / "migration_version", *migration_version(*chain, values_, "1234:0001 rev 02"));
  const auto dest = describe_device(address_, compat_);
  ASSERT_TRUE(dest) << dest.error().reason.text;
  EXPECT_EQ(dest->descriptor.config, "1234:0001 rev 02");
}

TEST_F(CompatDevice, configuration_space_is_read_with_the_kernels_view_of_a_vf) {
  std::string config(256, '\0');
  config[0] = config[1] = config[2] = config[3] = '\xff';  // what a VF's own ids read as
  config[0xff] = '\n';
  std::ofstream(host_.device(kName) / "config", std::ios::binary) << config;
  host_.write(host_.device(kName) / "resource", "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n0x0 0x0 0x0");
  const auto print = compat_.sysfs.config_fingerprint(address_);
  ASSERT_TRUE(print) << print.error().text;
  EXPECT_THAT(*print, HasSubstr("1234:0001"));
  host_.write(host_.device(kName) / "resource", "0x00000000fe000000 0x00000000fe007fff 0x0000000000140204");
  EXPECT_NE(*compat_.sysfs.config_fingerprint(address_), *print);
}

TEST_F(CompatDevice, a_configuration_space_that_cannot_be_read_is_said) {
  LinuxHost host(host_.root());
  testing::internal::CaptureStderr();
  ASSERT_TRUE(host.run({.action = Action::remember, .address = address_, .record = std::make_shared<const DeviceRecord>(record_)}));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::AllOf(HasSubstr(kName), HasSubstr("no verdict will compare")));
}

TEST_F(CompatDevice, MV4_what_was_not_compared_is_said) {
  Descriptor source = describe_source(kName, compat_)->descriptor;
  source.config = "1234:0001 rev 02";
  const Judged judged = judge(source, *describe_device(address_, compat_));
  EXPECT_EQ(verdict_json("s", judged)["unchecked"].dump(), R"(["config"])");
  EXPECT_THAT(verdict_text("s", judged), HasSubstr("\n  configuration space was not compared: "));
  EXPECT_THAT(candidates_text({judged}, false), HasSubstr(", configuration space not compared\n"));
}

// ---- a device that a VMM has open

TEST_F(CompatDevice, MM6_a_device_in_use_receives_nothing) {
  const Descriptor source = describe_source(kName, compat_)->descriptor;
  open_ = true;
  const auto sides = describe_destinations(kName, compat_, {});
  ASSERT_TRUE(sides) << sides.error().reason.text;
  const Judged judged = judge(source, sides->front());
  EXPECT_EQ(judged.verdict.answer, Answered::no);
  EXPECT_EQ(verdict_json("s", judged)["reasons"][0]["code"], "in-use");
  EXPECT_THAT(verdict_text("s", judged), HasSubstr("a VMM has the device open"));
  EXPECT_EQ(candidates_text({judged}, false), "");
  // A source is open while its guest runs.
  EXPECT_TRUE(describe_source(kName, compat_));
}

TEST_F(CompatDevice, MM6_where_use_cannot_be_asked_the_verdict_says_so) {
  const Descriptor source = describe_source(kName, compat_)->descriptor;
  open_ = fail(EACCES, "cannot open /dev/vfio-pci-hooks");
  const Judged judged = judge(source, describe_destinations(kName, compat_, {})->front());
  EXPECT_EQ(judged.verdict.answer, Answered::yes);
  EXPECT_EQ(verdict_json("s", judged)["unchecked"].dump(), R"(["in-use"])");
  EXPECT_THAT(verdict_text("s", judged), HasSubstr("\n  whether a VMM has the device open was not asked: only root may\n"));
  EXPECT_EQ(candidates_json("s", {judged})["candidates"][0]["unchecked"].dump(), R"(["in-use"])");
  EXPECT_THAT(candidates_text({judged}, false), HasSubstr(", not asked whether it is open\n"));
  open_ = false;
  EXPECT_EQ(verdict_json("s", judge(source, *describe_device(address_, compat_)))["unchecked"].dump(), "[]");
}

TEST_F(CompatDevice, MM6_prepare_asks_under_its_lock_and_leaves_a_device_in_use_alone) {
  // Only a parameter that may change while the device is open differs, so that no EBUSY protects the guest.
  Descriptor source = describe_source(kName, compat_)->descriptor;
  source.emits = "1";
  std::erase_if(source.parameters, [](const DescribedParameter& p) { return p.version; });
  const auto file = host_.device(kName) / "migration/state_version/value";
  compat_.is_open = [this](const PciAddress&) {
    EXPECT_FALSE(compat_.state.lock());
    return open_;
  };
  open_ = true;
  auto prepared = prepare(source, address_, compat_);
  ASSERT_TRUE(prepared);
  EXPECT_EQ(prepared->verdict.reasons.at(0).code, "in-use");
  EXPECT_EQ(host_.read(file), "2");
  open_ = fail(EACCES, "cannot open /dev/vfio-pci-hooks");
  prepared = prepare(source, address_, compat_);
  ASSERT_TRUE(prepared);
  EXPECT_EQ(prepared->verdict.answer, Answered::unknown);
  EXPECT_EQ(host_.read(file), "2");
  open_ = false;
  prepared = prepare(source, address_, compat_);
  ASSERT_TRUE(prepared) << prepared.error().reason.text;
  EXPECT_EQ(prepared->verdict.answer, Answered::yes);
  EXPECT_EQ(host_.read(file), "1");
}

TEST_F(CompatDevice, MM5_a_host_that_is_busy_is_no_answer) {
  const Descriptor source = describe_source(kName, compat_)->descriptor;
  const auto lock = compat_.state.lock();
  ASSERT_TRUE(lock);
  const auto prepared = prepare(source, address_, compat_);
  ASSERT_FALSE(prepared);
  EXPECT_EQ(prepared.error().code, kUnknown);
  EXPECT_THAT(prepared.error().reason.text, HasSubstr("`hookline compat prepare` is at work"));
}

TEST_F(CompatDevice, MM5_a_write_that_fails_is_no_answer_and_changes_nothing) {
  Descriptor source = describe_source(kName, compat_)->descriptor;
  source.emits = "1";
  std::erase_if(source.parameters, [](const DescribedParameter& p) { return p.version; });
  const auto first = host_.device(kName) / "migration/state_version/value", second = host_.device(kName) / "migration/queues/value";
  compat_.is_open = [&](const PciAddress&) -> Result<bool> {
    std::filesystem::remove(second);
    std::filesystem::create_directory(second);
    return false;
  };
  const auto prepared = prepare(source, address_, compat_);
  ASSERT_FALSE(prepared);
  EXPECT_EQ(prepared.error().code, kUnknown);
  EXPECT_THAT(prepared.error().reason.text, HasSubstr("the device is as it was"));
  EXPECT_EQ(host_.read(first), "2");
}

// ---- prepare

class Prepare : public testing::Test {
 protected:
  Result<void> write(const ParameterValue& p) {
    journal_.push_back(p.name + "=" + p.value);
    if (fails_ && *fails_ == p.name) return fail(EBUSY, "Device or resource busy");
    values_[p.name] = p.value;
    return {};
  }
  Result<void> run() {
    return write_parameters(wanted_, before_, [this](const ParameterValue& p) { return write(p); });
  }

  const std::vector<ParameterValue> wanted_{{"a", "7"}, {"b", "1"}, {"c", "9"}};
  const std::vector<ParameterValue> before_{{"a", "1"}, {"b", "1"}, {"c", "3"}};
  std::map<std::string, std::string> values_{{"a", "1"}, {"b", "1"}, {"c", "3"}};
  std::optional<std::string> fails_;
  std::vector<std::string> journal_;
};

TEST_F(Prepare, MM5_writes_each_parameter_exactly_once) {
  ASSERT_TRUE(run());
  EXPECT_THAT(journal_, ElementsAre("a=7", "b=1", "c=9"));
}

TEST_F(Prepare, MM5_twice_is_once) {
  ASSERT_TRUE(run());
  const auto once = values_;
  ASSERT_TRUE(run());
  EXPECT_EQ(values_, once);
}

TEST_F(Prepare, MM5_a_failing_write_leaves_the_device_as_it_was) {
  const auto before = values_;
  for (const char* failing : {"a", "b", "c"}) {
    fails_ = failing;
    const Result<void> ok = run();
    ASSERT_FALSE(ok);
    EXPECT_EQ(ok.error().code, EBUSY);
    EXPECT_EQ(values_, before) << failing;
    EXPECT_THAT(ok.error().text, HasSubstr("prepare it before its VMM starts; the device is as it was"));
  }
}

int signals_seen = 0;

TEST_F(Prepare, MM5_a_signal_waits_until_all_or_none_is_written) {
  struct sigaction counts{}, before[3];
  counts.sa_handler = [](int) { ++signals_seen; };
  constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
  for (size_t i = 0; i < 3; ++i) sigaction(kSignals[i], &counts, &before[i]);
  for (const bool fails : {false, true}) {
    signals_seen = 0;
    size_t writes = 0;
    const Result<void> ok = write_parameters(wanted_, before_, [&](const ParameterValue& p) -> Result<void> {
      ++writes;
      for (const int signal : kSignals) raise(signal);
      EXPECT_EQ(signals_seen, 0) << p.name;
      if (fails && p.name == "c") return fail(EIO, "Input/output error");
      return {};
    });
    EXPECT_EQ(ok.has_value(), !fails);
    EXPECT_EQ(writes, fails ? 4u : 3u);  // "a" is written back
    EXPECT_EQ(signals_seen, 3);
  }
  for (size_t i = 0; i < 3; ++i) sigaction(kSignals[i], &before[i], nullptr);
}

TEST_F(Prepare, what_could_not_be_taken_back_is_said) {
  // The device is lost after the first write.
  int left = 1;
  const Result<void> ok = write_parameters(wanted_, before_, [&](const ParameterValue&) -> Result<void> {
    if (left-- > 0) return {};
    return fail(ENODEV, "No such device");
  });
  ASSERT_FALSE(ok);
  EXPECT_THAT(ok.error().text, HasSubstr("parameter \"a\" stays 7, it was 1: No such device"));
  EXPECT_EQ(ok.error().text.find("as it was;"), std::string::npos);
}

// ---- what is printed

TEST(CompatReport, the_best_needs_the_fewest_changes_then_has_the_sources_version) {
  Descriptor source = device("1");
  Descriptor same = device("1"), other_version = device("1"), to_change = device("2"), narrow = device("1");
  other_version.plugin_version = "2.1";
  narrow.model = "com.example/other";
  std::vector<Judged> all{judge(source, Side{"narrow", narrow}), judge(source, Side{"change", to_change}),
                          judge(source, Side{"other", other_version}), judge(source, Side{"same", same})};
  sort_best_first(all);
  std::vector<std::string> names;
  for (const Judged& judged : all) names.push_back(judged.name);
  EXPECT_THAT(names, ElementsAre("same", "other", "change", "narrow"));
  EXPECT_EQ(candidates_text(all, false),
            "same  nothing to change\nother  nothing to change, another version of the plugin\nchange  1 parameter to change\n");
  EXPECT_EQ(candidates_text(all, true),
            "narrow: the source is a \"com.example/toy\", the destination a \"com.example/other\"\n");
  const auto json = candidates_json("s", all);
  EXPECT_EQ(json["candidates"][0]["dest"], "same");
  EXPECT_EQ(json["candidates"][2]["changes"], 1);
  EXPECT_EQ(json["refused"][0]["compatible"], false);
}

TEST(CompatReport, a_yes_says_what_becomes_of_each_parameter) {
  EXPECT_EQ(verdict_text("old.json", judge(device("1"), Side{"new.json", device("2")})),
            "yes: new.json can receive the state of old.json\n"
            "  state_version becomes 1, it is 2 now\n"
            "  queues stays 1\n");
}

TEST(CompatReport, a_no_says_why_and_what_to_do) {
  Descriptor old = device("1");
  old.reads = {{"1"}};
  old.parameters.erase(old.parameters.begin());
  EXPECT_EQ(verdict_text("new.json", judge(device("2"), Side{"old.json", old})),
            "no: old.json cannot receive the state of new.json\n"
            "  emits: the source emits state version 2, the destination reads 1\n"
            "    to do: write 1 to parameter \"state_version\" of the source, or install a version of the plugin at the "
            "destination that reads it\n");
}

TEST(CompatReport, the_verdict_for_programs) {
  Descriptor other = device();
  other.model = "com.example/other";
  EXPECT_EQ(verdict_json("a", judge(device(), Side{"b", other})).dump(),
            R"({"schema":"hookline/compat-check/1","source":"a","dest":"b","compatible":false,"reasons":[{"code":"model",)"
            R"("field":"model","source":"com.example/toy","dest":"com.example/other","text":"the source is a \"com.example/toy\", )"
            R"(the destination a \"com.example/other\"","fix":"choose a destination of the source's model"}],"unchecked":[],"parameters":{}})");
  other = device();
  other.required = {"quantum_state"};
  EXPECT_EQ(verdict_json("a", judge(device(), Side{"b", other}))["compatible"], "unknown");
  EXPECT_EQ(verdict_json("a", judge(device(), Side{"b", device("1")}))["parameters"]["state_version"], "2");
}

// ---- offline, for a scheduler

TEST(CompatReport, MV2_ten_thousand_destinations_are_judged_while_a_person_waits) {
  const std::string source_text = *migration_version(device("1"));
  const std::string good = migration_info(device("2"));
  Descriptor other = device();
  other.model = "com.example/other";
  const std::string bad = migration_info(other);
  const auto begin = std::chrono::steady_clock::now();
  const auto source = parse_descriptor(source_text);
  size_t compatible = 0;
  for (int i = 0; i < 10000; ++i) {
    const auto dest = parse_descriptor(i % 2 ? good : bad);
    compatible += judge(*source, Side{"d", *dest}).verdict.answer == Answered::yes;
  }
  EXPECT_EQ(compatible, 5000u);
  // Less than a second is what tests/bench measures; this only catches what takes minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

}  // namespace
}  // namespace hookline::loader
