// SPDX-License-Identifier: Apache-2.0
//
// The tree and its marks, and input that only an attacker writes. Texts of messages are pinned by tests/golden/check.
#include "config_parse.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include <fmt/format.h>

namespace hookline::loader {
namespace {

struct Parsed {
  Source source;
  Diagnostics found;
  YamlPtr root;
  explicit Parsed(std::string text) : source("f", std::move(text)) { root = parse_yaml(source, found); }
  std::string errors() const {
    std::string all;
    for (const Diagnostic& d : found.sorted()) all += fmt::format("{}:{} {}\n", d.where.line, d.where.column, d.text);
    return all;
  }
};

TEST(ConfigParse, EveryNodeKnowsItsPlace) {
  const Parsed p("a: one\nb:\n  - 'two'\n  - { c: \"th\\\"ree\" }\nd:\n");
  ASSERT_TRUE(p.root) << p.errors();
  const auto* a = p.root->find("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->value->text, "one");
  EXPECT_FALSE(a->value->quoted);
  EXPECT_EQ(a->value->where.line, 1u);
  EXPECT_EQ(a->value->where.column, 4u);
  EXPECT_EQ(a->value->where.length, 3u);
  const YamlNode& list = *p.root->find("b")->value;
  ASSERT_EQ(list.items.size(), 2u);
  EXPECT_EQ(list.items[0]->text, "two");
  EXPECT_TRUE(list.items[0]->quoted);
  EXPECT_EQ(list.items[0]->where.length, 5u);
  const YamlNode& c = *list.items[1]->find("c")->value;
  EXPECT_EQ(c.text, "th\"ree");
  EXPECT_EQ(c.where.column, 10u);
  EXPECT_EQ(c.where.length, 9u);
  EXPECT_EQ(p.root->find("d")->value->kind, YamlNode::Kind::null);
  EXPECT_EQ(p.root->find("e"), nullptr);
}

TEST(ConfigParse, AnAliasIsTheNodeItself) {
  const Parsed p("a: &x [1, 2]\nb: *x\n");
  ASSERT_TRUE(p.root) << p.errors();
  EXPECT_EQ(p.root->find("a")->value, p.root->find("b")->value);
  EXPECT_EQ(p.root->find("a")->value->where.column, 7u);  // behind the anchor
}

TEST(ConfigParse, OctalLooksAndTruthWordsStayTexts) {
  const Parsed p("a: 010\nb: yes\nc: 1e3\n");
  ASSERT_TRUE(p.root);
  EXPECT_EQ(p.root->find("a")->value->text, "010");
  EXPECT_EQ(p.root->find("b")->value->text, "yes");
  EXPECT_EQ(p.root->find("c")->value->text, "1e3");
}

TEST(ConfigParse, DepthIsLimitedAlsoThroughAliases) {
  std::string text = "a0: &a0 [x]\n";
  for (int i = 1; i < 100; ++i) text += fmt::format("a{}: &a{} [*a{}]\n", i, i, i - 1);
  const Parsed p(text);
  EXPECT_FALSE(p.root);
  EXPECT_EQ(p.errors(), "32:12 nested more than 32 deep\n");
}

TEST(ConfigParse, AliasesCountAsWhatTheyStandFor) {
  // 205 values beside the aliases, and each of those stands for 201: 98 of them fit.
  std::string text = "a: &a [";
  for (int i = 0; i < 199; ++i) text += "x, ";
  text += "x]\nb: [";
  for (int i = 0; i < 97; ++i) text += "*a, ";
  EXPECT_TRUE(Parsed(text + "*a]\n").root);
  EXPECT_FALSE(Parsed(text + "*a, *a]\n").root);
}

TEST(ConfigParse, AHugeFileIsRefusedBeforeItIsRead) {
  EXPECT_EQ(Parsed("# " + std::string(kMaxConfigBytes, 'x')).errors(), "0:0 larger than 1048576 bytes\n");
  EXPECT_TRUE(Parsed("a: 1 #" + std::string(kMaxConfigBytes - 6, 'x')).root);
}

// Each of them is small for its reader and large for a naive one.
TEST(ConfigParse, BombsEndSoon) {
  const auto repeat = [](const std::string& text, size_t bytes) {
    std::string all;
    while (all.size() + text.size() <= bytes) all += text;
    return all;
  };
  for (const char* piece : {"[", "{", "- ", "? ", "[{", "a: [", "'", "\"", "&a ", "*a ", "!", "! ", "|", ">\n", "%\n", "---\n",
                                   "...\n", "-\n", ": ", "a:\n ", "\\", ",", "]", "}", "x", "x ", "x: y\n", "#\n", "\n"})
    Parsed p(repeat(piece, 100000));
}

TEST(ConfigParse, GarbageNeverCrashes) {
  std::mt19937 random(1);
  const std::string seed =
      "defaults: &d\n  limits: { access: 100ms }\ndevices:\n  - match: { pf: \"e\\u0041\", vf: [0, 1-2] }\n    chain: *d\n    x: |\n      y\n";
  const std::string special = "[]{}:,-?&*!|>'\"%@`#\n\t \\~<=.0aé";
  for (int round = 0; round < 5000; ++round) {
    std::string text = seed;
    for (unsigned edits = random() % 8 + 1; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text[at] = special[random() % special.size()]; break;
        case 1: text.insert(at, 1, special[random() % special.size()]); break;
        case 2: text.erase(at, random() % 5); break;
      }
      if (text.empty()) text = "x";
    }
    const Parsed p(text);
    EXPECT_TRUE(p.root || p.found.errors()) << text;
    for (const Diagnostic& d : p.found.sorted()) render(p.source, d, false);
  }
}

TEST(ReadConfigFile, RefusesWhatIsNoFile) {
  EXPECT_EQ(read_config_file("/nonexistent/x.yaml").error().code, ENOENT);
  EXPECT_EQ(read_config_file("/").error().code, EISDIR);
  EXPECT_EQ(read_config_file("/dev/zero").error().code, EFBIG);
  EXPECT_EQ(*read_config_file("/dev/null"), "");
}

}  // namespace
}  // namespace hookline::loader
