// SPDX-License-Identifier: Apache-2.0
//
// Answers to questions about a device; the descriptor they come by is tested on a real kernel.
#include <hookline/query_serve.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/chain_descriptor.hpp>

#include "fake_plugin.hpp"

namespace hookline {
namespace {

using ::testing::HasSubstr;

class QueryTest : public ::testing::Test {
 protected:
  QueryTest() {
    plugin_.own_migration();
    plugin_.parameter({"state_version", "Format of the state", "2", "1", "1|2",
                       HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0});
    plugin_.abi.migration_version = "2";
    plugin_.abi.reads = "1|2";
  }
  Chain chain() { return *build_chain(test::links(plugin_)); }

  test::Journal journal_;
  test::FakePlugin plugin_{"plugin", journal_};
  const std::vector<std::string> values_{"1"};
};

TEST_F(QueryTest, MV4_WhatIsReadIsWhatOpensAStream) {
  const Chain own = chain();
  const QueryAnswer read = answer_query({1, VFIO_PCI_HOOKS_QUERY_READ, ""}, own, values_, "");
  EXPECT_EQ(read.code, 0);
  EXPECT_EQ(read.text, *migration_version(own, values_, ""));
  EXPECT_EQ(answer_query({2, VFIO_PCI_HOOKS_QUERY_WRITE, read.text}, own, values_, "").code, 0);
}

TEST_F(QueryTest, MV1_ARefusalHasTheReason) {
  const std::string source = answer_query({1, VFIO_PCI_HOOKS_QUERY_READ, ""}, chain(), values_, "").text;
  plugin_.abi.model = "com.example/other";
  const QueryAnswer answer = answer_query({2, VFIO_PCI_HOOKS_QUERY_WRITE, source}, chain(), values_, "");
  EXPECT_EQ(answer.code, EINVAL);
  EXPECT_THAT(answer.text, HasSubstr("com.example/other"));
  EXPECT_EQ(answer_query({3, VFIO_PCI_HOOKS_QUERY_WRITE, "no descriptor"}, chain(), values_, "").code,
            EINVAL);
}

TEST_F(QueryTest, MV1_ANewerKernelsQuestionIsRefused) {
  EXPECT_EQ(answer_query({1, 99, ""}, chain(), values_, "").code, EOPNOTSUPP);
}

}  // namespace
}  // namespace hookline
