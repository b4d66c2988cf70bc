// SPDX-License-Identifier: Apache-2.0
#include <hookline/compatibility.hpp>

#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <hookline/parameters.hpp>

namespace hookline {

void PrintTo(const ParameterValue& p, std::ostream* out) {
  *out << p.name << "=" << p.value;
}

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::vector<std::string> kFlags{"stop_copy", "p2p", "pre_copy"};

DescribedParameter parameter(std::string name, std::string value, std::string off, std::string allowed) {
  return {.name = std::move(name),
          .value = value,
          .init_value = value,
          .off_value = std::move(off),
          .allowed_values = std::move(allowed),
          .description = "for tests"};
}

Descriptor toy(std::vector<DescribedParameter> parameters = {}) {
  return {.model = "com.example/toy",
          .plugin = "toy",
          .plugin_version = "1.0",
          .emits = "1",
          .reads = std::vector<std::string>{"1"},
          .capabilities = kFlags,
          .parameters = std::move(parameters)};
}

/// N+1 of the same plugin: writes state version 2, or 1 if told so, and reads both.
Descriptor newer_toy(const std::string& emits) {
  Descriptor d = toy({parameter("state_version", emits, "1", "1|2")});
  d.parameters[0].init_value = "2";
  d.parameters[0].runtime = d.parameters[0].version = true;
  d.plugin_version = "2.0";
  d.emits = emits;
  d.reads = {{"1", "2"}};
  return d;
}

std::vector<std::string> codes(const Verdict& verdict) {
  std::vector<std::string> all;
  for (const Reason& reason : verdict.reasons) all.push_back(reason.code);
  return all;
}

Verdict check(const Descriptor& source, const Descriptor& dest) {
  const Verdict verdict = check_compatibility(source, dest);
  EXPECT_EQ(verdict.reasons.empty(), verdict.answer == Answered::yes);
  for (const Reason& reason : verdict.reasons) {
    EXPECT_FALSE(reason.code.empty() || reason.field.empty() || reason.text.empty() || reason.fix.empty())
        << reason.code;
  }
  // What a destination is told in the short text is enough for the same answer.
  const auto brief = migration_version(source);
  EXPECT_TRUE(brief) << brief.error().text;
  if (brief) {
    const auto told = parse_descriptor(*brief);
    EXPECT_TRUE(told) << told.error().text;
    EXPECT_EQ(check_compatibility(*told, dest).answer, verdict.answer) << *brief;
    EXPECT_EQ(codes(check_compatibility(*told, dest)), codes(verdict)) << *brief;
    EXPECT_EQ(values_for(*told, dest), values_for(source, dest)) << *brief;
  }
  return verdict;
}

// ---- the rules

TEST(Compatibility, MM1_another_model_is_another_device) {
  Descriptor other = toy();
  other.model = "com.example/other";
  other.reads = {{"7"}};
  const Verdict verdict = check(toy(), other);
  EXPECT_EQ(verdict.answer, Answered::no);
  ASSERT_THAT(codes(verdict), ElementsAre("model"));
  EXPECT_EQ(verdict.reasons[0].source, "com.example/toy");
  EXPECT_EQ(verdict.reasons[0].dest, "com.example/other");
}

TEST(Compatibility, MM4_a_parameter_at_its_off_value_is_not_in_the_list) {
  EXPECT_EQ(check(toy({parameter("rss", "off", "off", "off|on")}), toy()).answer, Answered::yes);
  const Verdict verdict = check(toy({parameter("rss", "on", "off", "off|on")}), toy());
  ASSERT_THAT(codes(verdict), ElementsAre("parameter"));
  EXPECT_EQ(verdict.reasons[0].field, "parameters.rss");
  EXPECT_THAT(verdict.reasons[0].fix, HasSubstr("off value, off, at the source"));
}

TEST(Compatibility, MM4_a_value_must_be_allowed_at_the_destination) {
  const Descriptor source = toy({parameter("queues", "8", "1", "1-16")});
  EXPECT_EQ(check(source, toy({parameter("queues", "1", "1", "1-8")})).answer, Answered::yes);
  const Verdict verdict = check(source, toy({parameter("queues", "1", "1", "1|2|4")}));
  ASSERT_THAT(codes(verdict), ElementsAre("value"));
  EXPECT_EQ(verdict.reasons[0].source, "8");
  EXPECT_EQ(verdict.reasons[0].dest, "1|2|4");
  EXPECT_EQ(verdict.reasons[0].text,
            "parameter \"queues\" is 8 at the source, the destination allows 1, 2 or 4");
}

TEST(Compatibility, MM5_what_the_source_does_not_use_must_be_possible_to_switch_off) {
  const Descriptor dest = toy({parameter("queues", "4", "1", "2-4")});
  const Verdict verdict = check(toy(), dest);
  ASSERT_THAT(codes(verdict), ElementsAre("value"));
  EXPECT_THAT(verdict.reasons[0].text, HasSubstr("does not allow its off value, 1"));
  EXPECT_EQ(check(toy({parameter("queues", "3", "1", "1-4")}), dest).answer, Answered::yes);
}

TEST(Compatibility, MM5_each_parameter_of_the_destination_is_named_exactly_once) {
  const Descriptor source = toy({parameter("b", "7", "0", "0-9"), parameter("unused", "x", "x", "x|y"),
                                 parameter("c", "0", "0", "0-9")});
  const Descriptor dest = toy(
      {parameter("a", "5", "1", "0-9"), parameter("b", "5", "2", "0-9"), parameter("c", "5", "0", "0-9")});
  ASSERT_EQ(check(source, dest).answer, Answered::yes);
  EXPECT_THAT(values_for(source, dest),
              ElementsAre(ParameterValue{"a", "1"}, ParameterValue{"b", "7"}, ParameterValue{"c", "0"}));
}

TEST(Compatibility, MV5_backward_migration_works_both_ways) {
  const Descriptor old = toy();
  EXPECT_EQ(check(old, newer_toy("2")).answer, Answered::yes);
  EXPECT_EQ(check(newer_toy("2"), newer_toy("1")).answer, Answered::yes);
  EXPECT_EQ(check(newer_toy("1"), old).answer, Answered::yes);
  const Verdict verdict = check(newer_toy("2"), old);
  ASSERT_THAT(codes(verdict), ElementsAre("version"));
  EXPECT_EQ(verdict.reasons[0].text, "the source emits state version 2, the destination reads 1");
  EXPECT_THAT(verdict.reasons[0].fix, HasSubstr("write 1 to parameter \"state_version\" of the source"));
  // A short description does not say what the source's parameter allows.
  Descriptor shortened = newer_toy("2");
  for (DescribedParameter& p : shortened.parameters) p.allowed_values.reset();
  EXPECT_THAT(check(shortened, old).reasons[0].fix,
              HasSubstr("write 1 to parameter \"state_version\" of the source if it allows that, or "));
  EXPECT_THAT(verdict.reasons[0].fix, HasSubstr("of the source, or "));
  // Who has come from N writes for N.
  EXPECT_THAT(values_for(old, newer_toy("2")), ElementsAre(ParameterValue{"state_version", "1"}));
}

TEST(Compatibility, MV2_the_present_values_of_the_destination_do_not_matter) {
  for (const char* emits : {"1", "2"}) {
    for (const char* now : {"1", "2"})
      EXPECT_EQ(check_compatibility(newer_toy(emits), newer_toy(now)),
                check_compatibility(newer_toy(emits), newer_toy("2")));
  }
}

TEST(Compatibility, another_plugin_writes_another_state) {
  Descriptor other = toy();
  other.plugin = "toy-of-somebody";
  EXPECT_THAT(codes(check(toy(), other)), ElementsAre("plugin"));
  other.plugin = "toy";
  other.plugin_version = "77";
  EXPECT_EQ(check(toy(), other).answer, Answered::yes);
}

TEST(Compatibility, capability_flags_are_equal) {
  Descriptor less = toy();
  less.capabilities = {"pre_copy", "stop_copy"};
  for (const auto& [source, dest] : {std::pair(toy(), less), std::pair(less, toy())}) {
    const Verdict verdict = check(source, dest);
    ASSERT_THAT(codes(verdict), ElementsAre("capability"));
    EXPECT_EQ(verdict.reasons[0].field, "capabilities.p2p");
  }
  less.capabilities = {"pre_copy", "p2p", "stop_copy"};  // the order says nothing
  EXPECT_EQ(check(toy(), less).answer, Answered::yes);
}

TEST(Compatibility, one_plugin_more_that_has_state_is_a_reason_either_way) {
  Descriptor more = toy();
  more.sections = {{"guard", "1.0"}};
  EXPECT_THAT(codes(check(more, toy())), ElementsAre("section"));
  EXPECT_THAT(codes(check(toy(), more)), ElementsAre("section"));
  EXPECT_EQ(check(more, more).answer, Answered::yes);
}

TEST(Compatibility, MV4_only_the_same_version_of_another_plugin_is_known_to_read_its_state) {
  Descriptor older = toy(), newer = toy();
  older.sections = {{"guard", "1.0"}};
  newer.sections = {{"guard", "1.1"}};
  for (const auto& [source, dest] : {std::pair(older, newer), std::pair(newer, older)}) {
    // As the source's short text tells it.
    const auto brief = parse_descriptor(*migration_version(source));
    ASSERT_TRUE(brief) << brief.error().text;
    const Verdict verdict = check(*brief, dest);
    ASSERT_THAT(codes(verdict), ElementsAre("section"));
    const Reason& reason = verdict.reasons[0];
    EXPECT_EQ(reason.field, "sections.guard");
    EXPECT_EQ(reason.source, source.sections[0].version);
    EXPECT_EQ(reason.dest, dest.sections[0].version);
    for (const std::string& text : {reason.text, reason.fix})
      EXPECT_THAT(text, testing::AllOf(HasSubstr("version 1.0"), HasSubstr("version 1.1")));
  }
}

TEST(Compatibility, configuration_space_counts_where_both_know_theirs) {
  Descriptor a = toy(), b = toy();
  a.config = "1234:0001 a";
  EXPECT_EQ(check(a, b).answer, Answered::yes);
  EXPECT_THAT(check(a, b).unchecked, ElementsAre("config"));
  EXPECT_EQ(check(b, a).answer, Answered::yes);
  EXPECT_THAT(check(b, a).unchecked, IsEmpty());
  EXPECT_THAT(check(a, a).unchecked, IsEmpty());
  b.config = "1234:0001 b";
  EXPECT_THAT(codes(check(a, b)), ElementsAre("config"));
}

TEST(Compatibility, an_unknown_required_key_makes_the_answer_unknown_unless_it_is_no_anyway) {
  Descriptor strange = toy();
  strange.required = {"model", "quantum_state"};
  Verdict verdict = check(strange, toy());
  EXPECT_EQ(verdict.answer, Answered::unknown);
  ASSERT_THAT(codes(verdict), ElementsAre("unknown-key"));
  EXPECT_EQ(verdict.reasons[0].field, "quantum_state");
  EXPECT_EQ(check(toy(), strange).answer, Answered::unknown);
  strange.model = "com.example/other";
  EXPECT_EQ(check(strange, toy()).answer, Answered::no);
}

TEST(Compatibility, a_migration_version_describes_no_destination) {
  const Descriptor brief = *parse_descriptor(*migration_version(toy()));
  const Verdict verdict = check(toy(), brief);
  EXPECT_EQ(verdict.answer, Answered::unknown);
  ASSERT_THAT(codes(verdict), ElementsAre("unknown-destination"));
  // What `hookline describe --json` prints is not a description of one device.
  EXPECT_EQ(verdict.reasons[0].fix,
            "describe it with `hookline compat export DEVICE|CONFIG`; a migration_version describes a source only");
}

TEST(Compatibility, every_reason_is_told_at_once) {
  Descriptor source = newer_toy("2");
  source.parameters.push_back(parameter("queues", "8", "1", "1-8"));
  source.sections = {{"guard", "1.0"}};
  source.capabilities = {"stop_copy"};
  const Verdict verdict = check(source, toy());
  EXPECT_THAT(codes(verdict), ElementsAre("version", "capability", "capability", "parameter", "section"));
  EXPECT_EQ(to_text(verdict).find('\n'), std::string::npos);
}

// ---- the examples of the three texts that asked for this, as they come out here

// Zhao 2020: two devices of one type with other software versions; the string of one is written to the other.
TEST(Compatibility, MV1_the_string_of_the_source_is_all_the_destination_needs) {
  const auto version = migration_version(newer_toy("2"));
  ASSERT_TRUE(version);
  EXPECT_EQ(
      *version,
      "{\"model\":\"com.example/toy\",\"plugin\":{\"name\":\"toy\",\"version\":\"2.0\"},\"emits\":\"2\","
      "\"capabilities\":[\"stop_copy\",\"p2p\",\"pre_copy\"],"
      "\"parameters\":[{\"name\":\"state_version\",\"value\":\"2\",\"version\":true}]}");
  const auto source = parse_descriptor(*version);
  ASSERT_TRUE(source);
  EXPECT_EQ(check_compatibility(*source, newer_toy("1")).answer, Answered::yes);
  EXPECT_EQ(check_compatibility(*source, toy()).answer, Answered::no);
}

// Zhao 2020: half a device of the larger type is not a whole one of the smaller, and may be declared to be.
TEST(Compatibility, MV3_types_of_other_sizes_are_compatible_only_where_the_plugin_says_so) {
  const auto share = [](const char* memory, const char* allowed) {
    return toy({parameter("memory_mib", memory, "64", allowed)});
  };
  EXPECT_EQ(check(share("128", "64|128"), share("64", "64|128|256")).answer, Answered::yes);
  EXPECT_EQ(check(share("256", "64|128|256"), share("64", "64|128")).answer, Answered::no);
}

// Zhao 2020: what the vendors of three devices would put into their strings. A vGPU: PCI id, driver version,
// type, how many of them are put together (aggregator). An NVMe VF: the URL of its remote storage. A crypto
// VF: its set of ciphers.
TEST(Compatibility, MV1_the_devices_of_the_thread_that_asked_for_migration_version) {
  const auto device = [](const char* model, DescribedParameter p) {
    Descriptor d = toy({std::move(p)});
    d.model = model;
    return d;
  };
  const auto vgpu = [&](const char* aggregator) {
    return device("com.example/vgpu-8086-591d-v5-8", parameter("aggregator", aggregator, "1", "1-8"));
  };
  EXPECT_EQ(check(vgpu("2"), vgpu("1")).answer, Answered::yes);
  EXPECT_THAT(values_for(vgpu("2"), vgpu("1")), ElementsAre(ParameterValue{"aggregator", "2"}));
  Descriptor other_type = vgpu("2");
  other_type.model = "com.example/vgpu-8086-591d-v5-4";
  EXPECT_THAT(codes(check(vgpu("2"), other_type)), ElementsAre("model"));

  // A destination that is connected to one storage allows that one, and has no way to be off.
  const auto nvme = [&](const char* url) {
    return device("com.example/nvme-vf", parameter("remote", url, "none", url));
  };
  EXPECT_EQ(check(nvme("nvmf://10.0.0.5/vol1"), nvme("nvmf://10.0.0.5/vol1")).answer, Answered::yes);
  EXPECT_THAT(codes(check(nvme("nvmf://10.0.0.5/vol1"), nvme("nvmf://10.0.0.6/vol1"))), ElementsAre("value"));

  const auto crypto = [&](const char* set, const char* allowed) {
    return device("com.example/crypto-vf", parameter("ciphers", set, "none", allowed));
  };
  EXPECT_EQ(check(crypto("aes", "none|aes"), crypto("aes+sm4", "none|aes|aes+sm4")).answer, Answered::yes);
  EXPECT_THAT(codes(check(crypto("aes+sm4", "none|aes|aes+sm4"), crypto("aes", "none|aes"))),
              ElementsAre("value"));

  // "software_version: the destination's major is the source's, its minor no less": the plugin lists what it
  // reads.
  Descriptor v5_1 = toy(), v5_2 = toy();
  v5_1.emits = "5.1", v5_1.reads = {{"5.0", "5.1"}};
  v5_2.emits = "5.2", v5_2.reads = {{"5.0", "5.1", "5.2"}};
  EXPECT_EQ(check(v5_1, v5_2).answer, Answered::yes);
  EXPECT_THAT(codes(check(v5_2, v5_1)), ElementsAre("version"));
}

// Hajnoczi 2020: a NIC whose newer release can do more; off means "as if it were not there".
TEST(Compatibility, MM4_a_feature_the_older_device_lacks_must_be_off) {
  const Descriptor older = toy({parameter("num_queues", "4", "1", "1-4")});
  const auto newer = [](const char* queues, const char* rss) {
    return toy({parameter("num_queues", queues, "1", "1-16"), parameter("rss", rss, "off", "off|on")});
  };
  EXPECT_EQ(check(older, newer("16", "on")).answer, Answered::yes);
  EXPECT_THAT(values_for(older, newer("16", "on")),
              ElementsAre(ParameterValue{"num_queues", "4"}, ParameterValue{"rss", "off"}));
  EXPECT_EQ(check(newer("4", "off"), older).answer, Answered::yes);
  EXPECT_THAT(codes(check(newer("4", "on"), older)), ElementsAre("parameter"));
  EXPECT_THAT(codes(check(newer("8", "on"), older)), ElementsAre("value", "parameter"));
}

// ---- both texts

TEST(Compatibility, MM2_the_long_text_is_read_as_it_was_written) {
  Descriptor d = newer_toy("1");
  d.parameters.push_back(parameter("queues", "8", "1", "1-8"));
  d.sections = {{"guard", "1.0"}};
  d.config = "1234:0001";
  d.required = {"parameters"};
  const auto back = parse_descriptor(migration_info(d));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(*back, d);
}

TEST(Compatibility, MM2_the_long_text) {
  EXPECT_EQ(migration_info(newer_toy("2")), R"({
  "schema": "hookline/migration-info/1",
  "model": "com.example/toy",
  "plugin": {
    "name": "toy",
    "version": "2.0"
  },
  "emits": "2",
  "reads": [
    "1",
    "2"
  ],
  "capabilities": [
    "stop_copy",
    "p2p",
    "pre_copy"
  ],
  "parameters": [
    {
      "name": "state_version",
      "value": "2",
      "init_value": "2",
      "off_value": "1",
      "allowed_values": "1|2",
      "description": "for tests",
      "runtime": true,
      "version": true
    }
  ],
  "sections": []
}
)");
}

TEST(Compatibility, MV1_what_does_not_fit_into_sysfs_is_not_written) {
  Descriptor d = toy();
  d.emits = std::string(kMaxMigrationVersion, 'x');
  const auto version = migration_version(d);
  ASSERT_FALSE(version);
  EXPECT_EQ(version.error().code, E2BIG);
  EXPECT_THAT(version.error().text, HasSubstr("at most 4095"));
  d.emits = "\xc3\xa9";
  EXPECT_FALSE(migration_version(d));
}

TEST(Compatibility, MV1_the_largest_device_fits) {
  std::vector<DescribedParameter> parameters;
  for (int i = 0; i < 32; ++i)
    parameters.push_back(
        parameter(fmt::format("p{:030}", i), std::string(28, 'v'), "off", std::string(28, 'v') + "|off"));
  EXPECT_TRUE(migration_version(toy(parameters)));
}

// ---- hostile input

struct Hostile {
  const char* name;
  std::string text;
  const char* says;
};

void PrintTo(const Hostile& hostile, std::ostream* out) {
  *out << hostile.name;
}

std::string with(std::string_view more) {
  return fmt::format(
      "{{\"model\":\"m\",\"plugin\":{{\"name\":\"p\"}},\"emits\":\"1\",\"capabilities\":[]{}}}", more);
}

class RL4_HostileDescriptor : public testing::TestWithParam<Hostile> {};

TEST_P(RL4_HostileDescriptor, is_refused_with_a_text) {
  const auto parsed = parse_descriptor(GetParam().text);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, EINVAL);
  EXPECT_THAT(parsed.error().text, HasSubstr(GetParam().says));
  EXPECT_LT(parsed.error().text.size(), 400u);
  EXPECT_TRUE(std::all_of(parsed.error().text.begin(), parsed.error().text.end(),
                          [](char c) { return c >= 0x20 && c < 0x7f; }));
}

std::string deep(int levels) {
  return std::string(static_cast<size_t>(levels), '[') + std::string(static_cast<size_t>(levels), ']');
}

std::string many_parameters() {
  std::string all;
  for (int i = 0; i < 33; ++i) all += fmt::format("{}{{\"name\":\"p{}\",\"value\":\"1\"}}", i ? "," : "", i);
  return with(",\"parameters\":[" + all + "]");
}

const Hostile kHostile[] = {
    {"empty", "", "it is empty"},
    {"too_long", with(",\"x\":\"" + std::string(kMaxMigrationInfo, 'x') + "\""), "at most 65536"},
    {"nul", std::string("{\"model\":\"a\0b\"}", 15), "byte 11 is 0x00"},
    {"escaped_nul", with(",\"x\":\"\\u0000\""), "not printable ASCII"},
    {"not_ascii", with(",\"x\":\"\xc3\xa9\""), "is 0xc3"},
    {"escaped_not_ascii", with(",\"config\":\"\\u00e9\""), "not printable ASCII"},
    {"escaped_in_a_key", with(",\"\\u001b[31m\":1"), "not printable ASCII"},
    {"terminal_escape", "\x1b[31m", "byte 0 is 0x1b"},
    {"deep", with(",\"x\":" + deep(20000)), "nested deeper than 8"},
    {"deep_alone", deep(30000), "nested deeper than 8"},
    {"huge_number", with(",\"x\":1e99999"), "number overflow"},
    {"duplicate", with(",\"model\":\"n\""), "\"model\" is given twice"},
    {"duplicate_inside", with(",\"x\":{\"a\":1,\"a\":1}"), "\"a\" is given twice"},
    {"no_json", "com.example/toy 1.0", "it is no JSON"},
    {"cut", with("").substr(0, 30), "it is no JSON"},
    {"more_behind", with("") + "{}", "it is no JSON"},
    {"array", "[]", "it is an array, an object is expected"},
    {"no_model", "{\"plugin\":{\"name\":\"p\"},\"emits\":\"1\",\"capabilities\":[]}", "\"model\" is missing"},
    {"model_is_a_number", "{\"model\":1}", "\"model\" is a number, a text is expected"},
    {"empty_model", "{\"model\":\"\"}", "\"model\" is empty"},
    {"plugin_is_a_text", "{\"model\":\"m\",\"plugin\":\"p\"}", "\"plugin\" is a text, an object is expected"},
    {"long_model", "{\"model\":\"" + std::string(257, 'm') + "\"}", "at most 256"},
    {"other_schema", with(",\"schema\":\"hookline/describe/1\""), "expected \"hookline/migration-info/1\""},
    {"reads_is_a_text", with(",\"reads\":\"1\""), "\"reads\" is a text, a list of texts is expected"},
    {"reads_twice", with(",\"reads\":[\"1\",\"1\"]"), "\"reads\" has \"1\" twice"},
    {"null_among_texts", with(",\"reads\":[null]"), "\"reads\" is null"},
    {"null_among_sections", with(",\"sections\":[null]"), "an item of \"sections\" is null"},
    {"section_without_version", with(",\"sections\":[{\"name\":\"g\"}]"), "\"sections.version\" is missing"},
    {"section_twice",
     with(",\"sections\":[{\"name\":\"g\",\"version\":\"1\"},{\"name\":\"g\",\"version\":\"2\"}]"),
     "\"sections\" has \"g\" twice"},
    {"too_many_parameters", many_parameters(), "33 parameters, at most 32"},
    {"parameter_twice",
     with(",\"parameters\":[{\"name\":\"a\",\"value\":\"1\"},{\"name\":\"a\",\"value\":\"1\"}]"),
     "\"a\" is given twice"},
    {"parameter_without_value", with(",\"parameters\":[{\"name\":\"a\"}]"),
     "\"parameters.a.value\" is missing"},
    {"parameter_named_model", with(",\"parameters\":[{\"name\":\"model\",\"value\":\"1\"}]"),
     "\"model\" is no name of a parameter"},
    {"path_as_name", with(",\"parameters\":[{\"name\":\"../../driver\",\"value\":\"1\"}]"),
     "is no name of a parameter"},
    {"value_with_blank", with(",\"parameters\":[{\"name\":\"a\",\"value\":\"1 2\"}]"),
     "without blank and '|'"},
    {"value_is_a_number", with(",\"parameters\":[{\"name\":\"a\",\"value\":1}]"),
     "\"parameters.a.value\" is a number"},
    {"flag_is_a_text", with(",\"parameters\":[{\"name\":\"a\",\"value\":\"1\",\"version\":\"yes\"}]"),
     "true or false is expected"},
};

INSTANTIATE_TEST_SUITE_P(Compatibility, RL4_HostileDescriptor, testing::ValuesIn(kHostile),
                         [](const auto& hostile) { return std::string(hostile.param.name); });

TEST(Compatibility, the_text_around_the_hostile_ones_is_good) {
  const auto parsed = parse_descriptor(with(",\"x\":[1e5,-7,null,true,{\"y\":[]}]"));
  EXPECT_TRUE(parsed) << parsed.error().text;
}

// ---- properties, over drawn descriptors

class Draw {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}

  size_t below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }
  template <typename T>
  T one(std::initializer_list<T> of) {
    return *(of.begin() + below(of.size()));
  }

  Descriptor descriptor() {
    Descriptor d = below(2) ? toy() : newer_toy(one({"1", "2"}));
    if (!below(4)) d.model = "com.example/other";
    if (!below(6)) d.plugin = "other";
    for (const char* name : {"queues", "rss"}) {
      if (!below(3)) continue;
      const char* allowed = one({"1-8", "1|2", "2-4|off", "off|1"});
      const char* off = one({"1", "off", "2"});
      std::string value = one({"1", "2", "4", "off"});
      if (!is_allowed(allowed, value)) value = is_allowed(allowed, "1") ? "1" : "2";
      d.parameters.push_back(parameter(name, value, off, allowed));
    }
    if (!below(5)) d.capabilities.pop_back();
    if (!below(5)) d.sections = {{"guard", one({"1.0", "1.1"})}};
    if (!below(3)) d.config = one({"a", "b"});
    if (!below(12)) d.required = {"something"};
    return d;
  }

 private:
  std::mt19937 random_;
};

/// Puts a key nobody knows behind the n-th opening brace.
std::string with_ignored_key(std::string text, size_t n) {
  size_t at = std::string::npos;
  for (size_t i = 0; i <= n; ++i) at = text.find('{', at == std::string::npos ? 0 : at + 1);
  if (at == std::string::npos) return text;
  return text.insert(at + 1, "\"vendor_note\":{\"seen\":[1,2.5,null],\"by\":\"somebody\"},");
}

TEST(Compatibility, check_is_deterministic_and_ignored_keys_change_nothing) {
  Draw draw(1);
  size_t answers[3] = {};
  for (int i = 0; i < 3000; ++i) {
    const Descriptor source = draw.descriptor(), dest = draw.descriptor();
    const Verdict verdict = check(source, dest);
    ++answers[static_cast<size_t>(verdict.answer)];
    ASSERT_EQ(check_compatibility(source, dest), verdict);
    const size_t n = draw.below(3);
    const auto odd_source = parse_descriptor(with_ignored_key(migration_info(source), n));
    const auto odd_dest = parse_descriptor(with_ignored_key(migration_info(dest), n));
    ASSERT_TRUE(odd_source && odd_dest) << odd_source.error().text;
    ASSERT_EQ(*odd_source, source);
    ASSERT_EQ(check_compatibility(*odd_source, *odd_dest), verdict);
  }
  for (const size_t count : answers) EXPECT_GT(count, 20u);
}

TEST(Compatibility, MM5_preparing_twice_is_preparing_once) {
  Draw draw(2);
  int prepared = 0;
  for (int i = 0; i < 3000; ++i) {
    const Descriptor source = draw.descriptor();
    Descriptor dest = draw.descriptor();
    const Verdict verdict = check(source, dest);
    if (verdict.answer != Answered::yes) continue;
    ++prepared;
    const auto values = values_for(source, dest);
    ASSERT_EQ(values.size(), dest.parameters.size());
    for (size_t p = 0; p < values.size(); ++p) {
      ASSERT_EQ(values[p].name, dest.parameters[p].name);
      ASSERT_TRUE(is_allowed(*dest.parameters[p].allowed_values, values[p].value));
      dest.parameters[p].value = values[p].value;
    }
    ASSERT_EQ(values_for(source, dest), values);
    ASSERT_EQ(check(source, dest), verdict);
  }
  EXPECT_GT(prepared, 100);
}

}  // namespace
}  // namespace hookline
