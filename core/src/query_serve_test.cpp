// SPDX-License-Identifier: Apache-2.0
//
// Answers to questions about a device; the descriptor they come by is tested on a real kernel.
#include <hookline/query_serve.hpp>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/chain_descriptor.hpp>

#include "fake_plugin.hpp"

namespace hookline {
namespace {

using ::testing::ElementsAre;
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

// What the kernel says, one after the other; the last word is said for ever.
class QueryLoopTest : public ::testing::Test {
 protected:
  Result<void> serve(std::vector<Result<Query>> said, std::function<QueryAnswer(const Query&)> answer_to) {
    size_t at = 0;
    return serve_queries(
        [&](uint64_t answered, const QueryAnswer& answer, int) {
          if (answered) answers_.push_back(fmt::format("{}: {} {}", answered, answer.code, answer.text));
          return said[std::min(at++, said.size() - 1)];
        },
        answer_to,
        {.log = [this](uint32_t, std::string_view, std::string_view text) { log_.emplace_back(text); },
         .idle_ms = 1});
  }
  static Result<Query> question(uint64_t id) { return Query{id, VFIO_PCI_HOOKS_QUERY_READ, ""}; }
  static Result<Query> error(int code, const char* text) { return fail(code, text); }

  std::vector<std::string> answers_, log_;
};

TEST_F(QueryLoopTest, RL5_TroubleDoesNotEndIt) {
  const auto ended =
      serve({error(ENOMEM, "no memory"), error(ENOMEM, "no memory"), question(1), error(EINVAL, "late"),
             error(EIO, "odd"), question(2), error(ETIME, ""), error(ENODEV, "gone")},
            [](const Query&) {
              return QueryAnswer{0, "yes"};
            });
  EXPECT_TRUE(ended);
  EXPECT_THAT(answers_, ElementsAre("1: 0 yes", "2: 0 yes"));
  EXPECT_THAT(log_, ElementsAre("migration_version cannot be served just now: no memory; trying on",
                                "migration_version cannot be served just now: odd; trying on"));
}

TEST_F(QueryLoopTest, RL5_NorDoesMissingMemory) {
  int tries = 0;
  const auto ended = serve({question(1), question(2), error(ENODEV, "gone")}, [&](const Query& query) {
    if (++tries == 1) throw std::bad_alloc();
    return QueryAnswer{0, std::to_string(query.id)};
  });
  EXPECT_TRUE(ended);
  EXPECT_THAT(answers_, ElementsAre("2: 0 2"));
}

TEST_F(QueryLoopTest, RL1_WhoReadsAgainAndAgainDoesNotFillTheLog) {
  const auto write = [](uint64_t id) -> Result<Query> { return Query{id, VFIO_PCI_HOOKS_QUERY_WRITE, "x"}; };
  EXPECT_TRUE(serve({question(1), question(2), write(3), write(4), question(5), error(ENODEV, "gone")},
                    [](const Query&) {
                      return QueryAnswer{EINVAL, "no"};
                    }));
  EXPECT_THAT(log_, ElementsAre("migration_version: cannot be told: no", "migration_version: refused: no",
                                "migration_version: refused: no"));
}

TEST_F(QueryLoopTest, OlderModuleEndsIt) {
  const auto ended = serve({error(ENOTTY, "older")}, [](const Query&) { return QueryAnswer{}; });
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, ENOTTY);
}

}  // namespace
}  // namespace hookline
