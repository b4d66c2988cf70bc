// SPDX-License-Identifier: Apache-2.0
#include <hookline/chain.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio_pci_hooks.h>

#include <hookline/plugin.hpp>

#include "fake_plugin.hpp"

namespace hookline {
namespace {

using test::FakePlugin;
using test::links;
using ::testing::AllOf;
using ::testing::HasSubstr;

class ChainTest : public ::testing::Test {
 protected:
  std::string refusal(std::vector<Link> candidates) {
    const Result<Chain> chain = build_chain(std::move(candidates));
    if (chain) return "it was accepted";
    EXPECT_EQ(chain.error().code, EINVAL);
    return chain.error().text;
  }
  test::Journal journal_;
  FakePlugin a_{"a", journal_}, b_{"b", journal_}, c_{"c", journal_};
};

// ---- one link

TEST_F(ChainTest, AnOlderPluginLacksWhatCameLater) {
  a_.own_migration();
  a_.abi.abi.size = offsetof(hookline_plugin, access);
  const Result<Link> link = make_link(a_.abi);
  ASSERT_TRUE(link);
  EXPECT_NE(link->plugin.close, nullptr);
  EXPECT_EQ(link->plugin.access, nullptr);
  EXPECT_EQ(link->plugin.apply, nullptr);
}

TEST_F(ChainTest, WhatANewerPluginAppendsIsLeftOut) {
  struct {
    hookline_plugin known;
    uint64_t appended;
  } newer{a_.abi, ~uint64_t{0}};
  newer.known.abi.size = sizeof(newer);
  const Result<Link> link = make_link(newer.known);
  ASSERT_TRUE(link);
  EXPECT_EQ(link->name(), "a");
  EXPECT_EQ(link->plugin.apply, nullptr);
}

TEST_F(ChainTest, AnotherAbiIsRefusedWithBothVersions) {
  a_.abi.abi.major = 2;
  a_.abi.abi.minor = 7;
  const Result<Link> link = make_link(a_.abi);
  ASSERT_FALSE(link);
  EXPECT_EQ(link.error().code, EPROTONOSUPPORT);
  EXPECT_THAT(link.error().text, AllOf(HasSubstr("2.7"), HasSubstr("1.2"), HasSubstr("rebuild")));
}

TEST_F(ChainTest, ObjectsThatAreNoPluginAreRefused) {
  FakePlugin magic("magic", journal_), required("required", journal_), small("small", journal_),
      closed("closed", journal_);
  magic.abi.abi.magic = 0;
  required.abi.abi.required = uint64_t{1} << 63;
  small.abi.abi.size = sizeof(hookline_abi);
  closed.abi.close = nullptr;
  for (const FakePlugin* plugin : {&magic, &required, &small, &closed})
    EXPECT_FALSE(make_link(plugin->abi)) << plugin->abi.name;
}

TEST_F(ChainTest, OptionsThatAreNotGivenAreNotSet) {
  EXPECT_FALSE(make_link(a_.abi, {{.number = 1}, {.number = 2}}));
  const Result<Link> link = make_link(a_.abi);
  ASSERT_TRUE(link);
  ASSERT_EQ(link->options.size(), 1U);
  EXPECT_FALSE(link->options[0].is_set);
}

// ---- what stands together

TEST_F(ChainTest, AChainNeedsALink) {
  EXPECT_THAT(refusal({}), HasSubstr("at least one plugin"));
}

TEST_F(ChainTest, TwoOwnersAreRefusedByName) {
  EXPECT_THAT(refusal(links(a_.own_migration(), b_, c_.own_migration())),
              AllOf(HasSubstr("\"a\""), HasSubstr("\"c\""), HasSubstr("migration")));
}

TEST_F(ChainTest, TheSamePluginTwiceIsRefused) {
  EXPECT_THAT(refusal(links(a_, b_, a_)), HasSubstr("\"a\" is in the chain twice"));
}

TEST_F(ChainTest, TwoGuardsOfTheSameBytesAreRefused) {
  a_.guard().trap(0, 0x100, 0x20);
  b_.guard().trap(0, 0x11c, 8);
  EXPECT_THAT(refusal(links(a_, b_)),
              AllOf(HasSubstr("\"a\""), HasSubstr("\"b\""), HasSubstr("BAR 0 0x11c to 0x123")));
}

TEST_F(ChainTest, GuardsSideBySideAndObserversAnywhereStandTogether) {
  a_.guard().trap(0, 0x100, 0x20);
  b_.guard().trap(0, 0x120, 8).trap(1, 0x100, 8);
  c_.trap(0, 0, 0x1000);
  EXPECT_TRUE(build_chain(links(c_, a_, b_)));
  FakePlugin reader("reader", journal_), writer("writer", journal_);
  reader.guard().trap(0, 0, 4, HOOKLINE_WANT_READ);
  writer.guard().trap(0, 0, 4, HOOKLINE_WANT_WRITE);
  EXPECT_TRUE(build_chain(links(reader, writer)));
}

TEST_F(ChainTest, AGuardThatAYoungerOperationWouldBypassIsRefused) {
  a_.guard().abi.ops_known = HOOKLINE_OP_IOCTL;
  b_.abi.ioctls = 1U << 8;
  EXPECT_THAT(refusal(links(a_, b_)),
              AllOf(HasSubstr("\"a\""), HasSubstr("\"b\""), HasSubstr("ioctls"), HasSubstr("rebuild")));
  EXPECT_THAT(refusal(links(b_, a_)), HasSubstr("\"a\" would be bypassed"));
}

TEST_F(ChainTest, AYoungerOperationHarmsNeitherObserversNorChainsWithoutIt) {
  a_.abi.ops_known = HOOKLINE_OP_IOCTL;
  b_.abi.ioctls = 1U << 8;
  EXPECT_TRUE(build_chain(links(a_, b_)));
  a_.guard();
  EXPECT_TRUE(build_chain(links(a_, c_)));
}

TEST_F(ChainTest, ProgramsBelongToTheOwnerAndKeepTheKernelsRules) {
  std::vector<hookline_step> steps(HOOKLINE_MAX_STEPS + 1, write(0, 0, 1));
  a_.abi.stop = {steps.data(), 1, 0};
  EXPECT_THAT(refusal(links(a_)), AllOf(HasSubstr("\"a\""), HasSubstr("stop program"), HasSubstr("owner")));
  a_.own_migration();
  EXPECT_TRUE(build_chain(links(a_)));
  a_.abi.stop.nr_steps = HOOKLINE_MAX_STEPS + 1;
  EXPECT_THAT(refusal(links(a_)),
              AllOf(HasSubstr("\"a\""), HasSubstr("stop program"), HasSubstr("65 steps")));
  const hookline_step wait = delay(10);
  a_.abi.stop = {&wait, 1, 0};
  EXPECT_TRUE(build_chain(links(a_)));
  a_.abi.reset = {&wait, 1, 0};
  EXPECT_THAT(refusal(links(a_)), AllOf(HasSubstr("reset program, step 0"), HasSubstr("waits")));
}

TEST_F(ChainTest, PluginsThatContradictThemselvesAreRefused) {
  FakePlugin no_access("no-access", journal_), region("region", journal_), empty("empty", journal_),
      half("half", journal_), owner("owner", journal_), deaf("deaf", journal_), upper("Upper", journal_);
  no_access.trap(0, 0, 4).abi.access = nullptr;
  region.trap(6, 0, 4);
  empty.trap(0, 4, 0);
  half.with_state().abi.apply = nullptr;
  owner.own_migration().abi.model = nullptr;
  deaf.abi.features = 1;
  deaf.abi.ioctl = nullptr;
  for (FakePlugin* plugin : {&no_access, &region, &empty, &half, &owner, &deaf, &upper})
    EXPECT_THAT(refusal(links(*plugin)), HasSubstr(std::string("\"") + plugin->abi.name + "\""));
}

// ---- what it asks for

TEST_F(ChainTest, RangesOfAllLinksAreMergedToDisjointOnes) {
  a_.trap(0, 0, 8).trap(0, 0x40, 4, HOOKLINE_WANT_WRITE);
  b_.trap(0, 8, 8).trap(0, 0x42, 6, HOOKLINE_WANT_READ).trap(HOOKLINE_REGION_CONFIG, 4, 2);
  const Result<Chain> chain = build_chain(links(a_, b_));
  ASSERT_TRUE(chain);
  std::vector<std::string> got;
  for (const hookline_range& r : chain->ranges())
    got.push_back(fmt::format("{}:{:#x}+{} {}", r.region, r.offset, r.length, r.ops));
  EXPECT_THAT(got,
              ::testing::ElementsAre("0:0x0+16 3", "0:0x40+2 2", "0:0x42+2 3", "0:0x44+4 1", "7:0x4+2 3"));
}

TEST_F(ChainTest, MoreRangesThanADefinitionHoldsAreRefused) {
  for (uint32_t i = 0; i < VFIO_PCI_HOOKS_MAX_RANGES; ++i) a_.trap(0, 16 * i, 4);
  EXPECT_TRUE(build_chain(links(a_)));
  b_.trap(1, 0, 4);
  EXPECT_THAT(refusal(links(a_, b_)), HasSubstr("33 separate ranges"));
}

TEST_F(ChainTest, EachLinkHasItsOwnSliceOfTheShadow) {
  a_.abi.shadow_size = 10;
  c_.abi.shadow_size = 100;
  const Result<Chain> chain = build_chain(links(a_, b_, c_));
  ASSERT_TRUE(chain);
  EXPECT_GE(chain->links()[2].shadow_offset, 10U);
  EXPECT_EQ(chain->links()[2].shadow_offset % alignof(std::max_align_t), 0U);
  EXPECT_GE(chain->shadow_size(), chain->links()[2].shadow_offset + 100);

  a_.abi.shadow_size = VFIO_PCI_HOOKS_MAX_SHADOW;
  EXPECT_THAT(refusal(links(a_, b_, c_)), AllOf(HasSubstr("\"a\" 65536"), HasSubstr("\"c\" 100")));
}

TEST_F(ChainTest, MasksAreJoinedAndTheOwnerGivesTheRest) {
  const hookline_step steps[] = {write(0, 0, 1), write(0, 0, 0)};
  a_.abi.ioctls = 1U << 8;
  b_.own_migration().guard();
  b_.abi.ioctls = 1U << 9;
  b_.abi.features = 1U << 3;
  b_.abi.start = {steps, 2, 0};
  b_.abi.max_state = 1000;
  const Result<Chain> chain = build_chain(links(a_, b_));
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->ioctls(), 3U << 8);
  EXPECT_EQ(chain->features(), 1U << 3);
  EXPECT_EQ(chain->owner(), 1U);
  EXPECT_EQ(chain->start().size(), 2U);
  EXPECT_TRUE(chain->stop().empty());
  EXPECT_TRUE(chain->has_guard());
  EXPECT_GT(chain->max_state(), 1000U);
}

TEST_F(ChainTest, BulkIsTheOwnersWithAllOfItsCallbacksAndABound) {
  const auto refusal = [this] {
    const Result<Chain> chain = build_chain(links(a_));
    return chain ? std::string() : chain.error().text;
  };
  a_.with_bulk(4096);
  EXPECT_EQ(refusal(),
            "plugin \"a\": it has a save_bulk(), but only the owner of the device's migration may have one");
  a_.own_migration();
  EXPECT_EQ(refusal(), "");
  a_.abi.max_bulk = 0;
  EXPECT_EQ(refusal(), "plugin \"a\": max_bulk and save_bulk() go together, it lacks one of them");
  a_.abi.max_bulk = uint64_t{1} << 41;
  EXPECT_EQ(refusal(),
            "plugin \"a\": max_bulk is 2199023255552 bytes, at most 1099511627776 are allowed");
  a_.abi.max_bulk = 4096;
  a_.abi.load_bulk = nullptr;
  EXPECT_EQ(refusal(),
            "plugin \"a\": save_bulk(), bulk_sizes() and load_bulk() go together, it lacks one of them");
  a_.with_bulk(4096).abi.bulk_sizes = nullptr;
  EXPECT_NE(refusal(), "");
  a_.with_bulk(4096).abi.save_bulk = nullptr;
  EXPECT_NE(refusal(), "");
}

TEST_F(ChainTest, WithoutAnOwnerThereIsNoState) {
  const Result<Chain> chain = build_chain(links(a_.with_state()));
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->owner(), std::nullopt);
  EXPECT_EQ(chain->max_state(), 0U);
  EXPECT_FALSE(chain->has_guard());
}

}  // namespace
}  // namespace hookline
