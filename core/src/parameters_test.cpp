// SPDX-License-Identifier: Apache-2.0
#include <hookline/parameters.hpp>

#include <fstream>
#include <functional>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hookline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// What the file writes for texts that no line can hold well.
std::string meant(std::string text) {
  if (text == "<>") return "";
  if (text == "<63>" || text == "<64>") return std::string(text == "<63>" ? 63 : 64, 'x');
  return text;
}

TEST(AllowedValues, AnswersAsTheTestVectorsSay) {
  std::ifstream file(HOOKLINE_ALLOWED_VALUES);
  int vectors = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t first = line.find(','), second = line.find(',', first + 1);
    ASSERT_NE(second, std::string::npos) << line;
    const std::string answer = line.substr(second + 1);
    ASSERT_TRUE(answer == "yes" || answer == "no") << line;
    EXPECT_EQ(is_allowed(meant(line.substr(0, first)), meant(line.substr(first + 1, second - first - 1))),
              answer == "yes")
        << line;
    ++vectors;
  }
  EXPECT_GT(vectors, 50);
}

TEST(AllowedValues, WhatIsNoValueIsNeverAllowed) {
  EXPECT_FALSE(is_allowed("", ""));
  EXPECT_FALSE(is_allowed("a||b", ""));
  EXPECT_FALSE(is_allowed("a b", "a b"));
  EXPECT_FALSE(is_allowed("a\n", "a\n"));
  EXPECT_FALSE(is_allowed(std::string_view("a\0b", 3), std::string_view("a\0b", 3)));
  EXPECT_TRUE(is_allowed(std::string(63, 'x'), std::string(63, 'x')));
  EXPECT_FALSE(is_allowed(std::string(64, 'x'), std::string(64, 'x')));
}

TEST(AllowedValues, AreListedInOrder) {
  EXPECT_THAT(split_values("off|1-8|x"), ElementsAre("off", "1-8", "x"));
  EXPECT_THAT(split_values("a||"), ElementsAre("a", "", ""));
  EXPECT_TRUE(split_values("").empty());
}

class Declaration : public ::testing::Test {
 protected:
  Declaration() {
    plugin.claims = HOOKLINE_CLAIM_MIGRATION;
    plugin.migration_version = "2";
    plugin.reads = "1|2";
  }
  std::string refusal() {
    plugin.parameters = parameters.data();
    plugin.nr_parameters = static_cast<uint32_t>(parameters.size());
    const Result<void> ok = check_parameters(plugin);
    return ok ? "" : ok.error().text;
  }

  static constexpr uint32_t kVersion = HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION;
  std::vector<hookline_parameter> parameters = {
      {"state_version", "Format of the state", "2", "1", "1|2", kVersion, 0},
      {"queues", "Queues the guest sees", "1", "off", "off|1-8", 0, 0}};
  hookline_plugin plugin{};
};

TEST_F(Declaration, WhatMakesSenseIsTaken) {
  EXPECT_EQ(refusal(), "");
  parameters.clear();
  EXPECT_EQ(refusal(), "") << "versions without a parameter for them";
  plugin.reads = nullptr;
  plugin.migration_version = "any text at all";
  EXPECT_EQ(refusal(), "") << "as in ABI 1.0";
  plugin = {};
  EXPECT_EQ(refusal(), "") << "a plugin that owns no migration";
}

TEST_F(Declaration, EachFaultIsRefusedWithWhatWouldBeRight) {
  using Parameters = std::vector<hookline_parameter>;
  static const std::string long_text(256, 'x'), long_value(64, 'x');
  const struct {
    std::function<void(hookline_plugin&, Parameters&)> spoil;
    const char* text;
  } cases[] = {
      {[](auto& p, auto&) { p.claims = 0; }, "does not own the device's migration"},
      {[](auto& p, auto& v) { p.claims = 0, v.clear(); }, "does not own the device's migration"},
      {[](auto&, auto& v) { v.assign(33, v[1]); }, "33 migration parameters, at most 32"},
      {[](auto&, auto& v) { v[1].name = nullptr; }, "name of migration parameter 1 is not"},
      {[](auto&, auto& v) { v[1].name = "Queues"; }, "name of migration parameter 1 is not"},
      {[](auto&, auto& v) { v[1].name = "model"; }, "or is \"model\""},
      {[](auto&, auto& v) { v[1].name = "_queues"; }, "name of migration parameter 1 is not"},
      {[](auto&, auto& v) { v[1].name = "a2345678901234567890123456789012"; }, "1 to 31 of a-z"},
      {[](auto&, auto& v) { v[1].name = "state_version"; }, "\"state_version\" is declared twice"},
      {[](auto&, auto& v) { v[1].description = nullptr; }, "description is not one line"},
      {[](auto&, auto& v) { v[1].description = "two\nlines"; }, "description is not one line"},
      {[](auto&, auto& v) { v[1].description = long_text.c_str(); }, "of 1 to 255"},
      {[](auto&, auto& v) { v[1].allowed_values = nullptr; }, "allowed values are not"},
      {[](auto&, auto& v) { v[1].allowed_values = "off||1"; }, "allowed values are not"},
      {[](auto&, auto& v) { v[1].allowed_values = "off|1 2"; }, "allowed values are not"},
      {[](auto&, auto& v) { v[1].allowed_values = long_value.c_str(); }, "each of 1 to 63 printable"},
      {[](auto&, auto& v) { v[1].allowed_values = "off|8-1"; }, "range \"8-1\"; write LOW-HIGH"},
      {[](auto&, auto& v) { v[1].allowed_values = "off|01-8"; }, "no leading zeros"},
      {[](auto&, auto& v) { v[1].init_value = "9"; },
       "init value is not among its allowed values \"off|1-8\""},
      {[](auto&, auto& v) { v[1].init_value = nullptr; }, "init value is not among"},
      {[](auto&, auto& v) { v[1].off_value = "0"; }, "off value is not among"},
      {[](auto&, auto& v) { v[1].flags = 4; }, "flags 0x4, which this hookline does not know"},
      {[](auto&, auto& v) { v[0].flags = HOOKLINE_PARAMETER_VERSION; },
       "declare it HOOKLINE_PARAMETER_RUNTIME"},
      {[](auto&, auto& v) { v.push_back(v[0]), v[2].name = "other"; },
       "\"state_version\" and \"other\" are both the state version"},
      {[](auto& p, auto&) { p.migration_version = "1"; },
       "migration_version is \"1\" and parameter \"state_version\""},
      {[](auto& p, auto&) { p.reads = "2|3"; },
       "allows state version \"1\", but the plugin reads only \"2|3\""},
      {[](auto& p, auto&) { p.reads = nullptr; },
       "allows state version \"1\", but the plugin reads only \"2\""},
      {[](auto&, auto& v) { v[0].allowed_values = "1-2"; }, "list the versions one by one"},
      {[](auto& p, auto&) { p.reads = "1||2"; }, "the versions it reads are not"},
      {[](auto& p, auto&) { p.reads = ""; }, "the versions it reads are not"},
      {[](auto& p, auto& v) { v.clear(), p.reads = "1|3"; }, "a plugin reads what it emits"},
  };
  const std::vector<hookline_parameter> good = parameters;
  const hookline_plugin good_plugin = plugin;
  for (const auto& c : cases) {
    parameters = good;
    plugin = good_plugin;
    c.spoil(plugin, parameters);
    EXPECT_THAT(refusal(), HasSubstr(c.text));
  }
}

}  // namespace
}  // namespace hookline
