// SPDX-License-Identifier: Apache-2.0
#include <hookline/open_device.hpp>

#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/plugin.hpp>

#include "fake_plugin.hpp"

namespace hookline {
namespace {

using test::FakePlugin;
using test::links;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OpenDeviceTest : public ::testing::Test {
 protected:
  template <typename... Plugins>
  void open(Plugins&... plugins) {
    Result<Chain> chain = build_chain(links(plugins...));
    ASSERT_TRUE(chain) << chain.error().text;
    chain_ = std::make_unique<Chain>(std::move(*chain));
    device_.shadow_bytes.resize(chain_->shadow_size());
    Result<std::unique_ptr<OpenDevice>> opened =
        OpenDevice::open(*chain_, device_, {.address = "0000:01:10.0"},
                         [this](uint32_t, std::string_view plugin, std::string_view text) {
                           log_.push_back(fmt::format("{}: {}", plugin, text));
                         });
    ASSERT_TRUE(opened) << opened.error().text;
    open_ = std::move(*opened);
    journal_.clear();
  }

  Outcome access(uint32_t op, uint64_t offset, uint32_t length, uint64_t value = 0) {
    access_ = {};
    access_.op = op;
    access_.offset = offset;
    access_.length = length;
    access_.value = value;
    return open_->access(access_);
  }
  Outcome read(uint64_t offset, uint32_t length) { return access(HOOKLINE_OP_READ, offset, length); }
  Outcome write(uint64_t offset, uint32_t length, uint64_t value) {
    return access(HOOKLINE_OP_WRITE, offset, length, value);
  }

  static auto answer(int with) {
    return [with](auto&) { return with; };
  }

  test::Journal journal_, log_;
  FakePlugin a_{"a", journal_}, b_{"b", journal_}, c_{"c", journal_};
  test::FakeAccess device_{journal_};
  std::unique_ptr<Chain> chain_;
  std::unique_ptr<OpenDevice> open_;
  hookline_access access_{};
};

// ---- opening and closing

TEST_F(OpenDeviceTest, OpensInOrderAndClosesBackwards) {
  const Result<Chain> chain = build_chain(links(a_, b_, c_));
  { const auto opened = OpenDevice::open(*chain, device_, {}); }
  EXPECT_THAT(journal_, ElementsAre("a open", "b open", "c open", "c close", "b close", "a close"));
}

TEST_F(OpenDeviceTest, AFailingOpenClosesThoseBeforeIt) {
  b_.on_open = [this] { return b_.host->fail(b_.device, ENODEV, "no such firmware"); };
  const Result<Chain> chain = build_chain(links(a_, b_, c_));
  const auto opened = OpenDevice::open(*chain, device_, {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ENODEV);
  EXPECT_EQ(opened.error().text, "plugin \"b\": open(): no such firmware");
  EXPECT_THAT(journal_, ElementsAre("a open", "b open", "a close"));
}

// ---- the one rule

struct Rule {
  int answer;  // of b, in the middle
  bool next_is_asked;
};

class ChainOrder : public OpenDeviceTest, public ::testing::WithParamInterface<Rule> {};

TEST_P(ChainOrder, HoldsForAccesses) {
  for (FakePlugin* plugin : {&a_, &b_, &c_}) plugin->trap(0, 0x10, 4);
  b_.on_access = answer(GetParam().answer);
  open(a_, b_, c_);
  for (const bool is_read : {true, false}) {
    journal_.clear();
    const Outcome outcome = is_read ? read(0x10, 4) : write(0x10, 4, 1);
    EXPECT_EQ(outcome.answer > 0, GetParam().answer > 0);
    if (GetParam().answer <= 0) {
      EXPECT_EQ(outcome.answer, GetParam().answer);
      EXPECT_EQ(outcome.link, 1U);
    } else {
      EXPECT_EQ(outcome.link, std::nullopt);
    }
    const std::string op = is_read ? "read 0x10+4" : "write 0x10+4";
    test::Journal expected = {"a " + op, "b " + op};
    if (GetParam().next_is_asked) expected.push_back("c " + op);
    EXPECT_EQ(journal_, expected);
  }
}

TEST_P(ChainOrder, HoldsForIoctlsAndFeatures) {
  for (FakePlugin* plugin : {&a_, &b_, &c_}) {
    plugin->abi.ioctls = 1U << 10;
    plugin->abi.features = 1U << 3;
  }
  b_.on_ioctl = answer(GetParam().answer);
  open(a_, b_, c_);
  for (const uint32_t op : {HOOKLINE_OP_IOCTL, HOOKLINE_OP_FEATURE}) {
    journal_.clear();
    hookline_ioctl request{};
    request.op = op;
    request.number = op == HOOKLINE_OP_IOCTL ? 10 : (1U << 16 | 3);  // features: flags beside the number
    const Outcome outcome = open_->ioctl(request);
    EXPECT_EQ(outcome.answer, GetParam().answer);
    test::Journal expected = {"a ioctl", "b ioctl"};
    if (GetParam().next_is_asked) expected.push_back("c ioctl");
    EXPECT_EQ(journal_, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Answers, ChainOrder,
                         ::testing::Values(Rule{0, false}, Rule{1, true}, Rule{-EACCES, false}));

TEST_F(OpenDeviceTest, EventsReachEverybodyInOrder) {
  a_.on_event = [] { throw std::runtime_error("bad day"); };
  open(a_, b_);
  open_->event({HOOKLINE_EVENT_RESET, 0, 0, 0});
  open_->event({HOOKLINE_EVENT_STATE, 2, 1, 0});
  EXPECT_THAT(journal_, ElementsAre("a reset", "b reset", "a state 2>1", "b state 2>1"));
  EXPECT_THAT(log_[0], AllOf(HasSubstr("\"a\""), HasSubstr("bad day")));
}

TEST_F(OpenDeviceTest, AbsentCallbacksPass) {
  a_.abi.ioctl = nullptr;
  a_.abi.access = nullptr;
  a_.abi.event = nullptr;
  b_.trap(0, 0, 4);
  open(a_, b_);
  EXPECT_EQ(read(0, 4).answer, HOOKLINE_PASS);
  open_->event({HOOKLINE_EVENT_RESET, 0, 0, 0});
  EXPECT_THAT(journal_, ElementsAre("b read 0x0+4", "b reset"));
}

TEST_F(OpenDeviceTest, AHandledReadGivesItsBytesAndNoMore) {
  a_.trap(0, 0, 8);
  a_.on_access = [](hookline_access& a) {
    a.value = 0x1122334455667788;
    return HOOKLINE_HANDLED;
  };
  open(a_);
  EXPECT_EQ(read(4, 2).answer, HOOKLINE_HANDLED);
  EXPECT_EQ(access_.value, 0x7788U);
}

TEST_F(OpenDeviceTest, WhoPassesChangesNothing) {
  a_.trap(0, 0, 4);
  a_.on_access = [](hookline_access& a) {
    a.value = 0xbad;
    a.offset = 0x800;
    a.length = 1;
    return HOOKLINE_PASS;
  };
  b_.trap(0, 0, 4);
  b_.on_access = [](hookline_access& a) {
    EXPECT_EQ(a.value, 7U);
    EXPECT_EQ(a.offset, 0U);
    return HOOKLINE_PASS;
  };
  open(a_, b_);
  EXPECT_EQ(write(0, 4, 7).answer, HOOKLINE_PASS);
  EXPECT_EQ(access_.value, 7U);
}

// ---- ranges

TEST_F(OpenDeviceTest, ALinkSeesOnlyWhatItDeclared) {
  a_.trap(0, 0x10, 4, HOOKLINE_WANT_WRITE);
  b_.trap(0, 0x20, 4).trap(HOOKLINE_REGION_CONFIG, 0x10, 4);
  open(a_, b_);
  read(0x10, 4);
  write(0x14, 4, 0);
  write(0x20, 4, 0);
  hookline_access other_bar{};
  other_bar.region = 2;
  other_bar.offset = 0x20;
  other_bar.length = 4;
  open_->access(other_bar);
  EXPECT_THAT(journal_, ElementsAre("b write 0x20+4"));
}

TEST_F(OpenDeviceTest, AnAccessIsCutAtTheEdgesOfItsLinks) {
  a_.trap(0, 0, 4);
  b_.trap(0, 4, 4);
  a_.on_access = [](hookline_access& a) {
    EXPECT_EQ(a.value, a.op == HOOKLINE_OP_WRITE ? 0x55667788U : 0U);
    a.value = 0xaaaaaaaa;
    return HOOKLINE_HANDLED;
  };
  b_.on_access = [](hookline_access& a) {
    EXPECT_EQ(a.value, a.op == HOOKLINE_OP_WRITE ? 0x11223344U : 0U);
    return HOOKLINE_PASS;
  };
  open(a_, b_);
  device_.memory[4] = 0xbb;
  EXPECT_EQ(read(0, 8).answer, HOOKLINE_HANDLED);
  EXPECT_EQ(access_.value, 0x000000bbaaaaaaaaU);
  EXPECT_THAT(journal_, ElementsAre("a read 0x0+4", "b read 0x4+4", "device read 0x4+4"));
  journal_.clear();
  EXPECT_EQ(write(0, 8, 0x1122334455667788).answer, HOOKLINE_HANDLED);
  EXPECT_THAT(journal_, ElementsAre("a write 0x0+4", "b write 0x4+4", "device write 0x4+4=0x11223344"));
}

TEST_F(OpenDeviceTest, IfAllPartsPassTheDeviceGetsTheAccessWhole) {
  a_.trap(0, 2, 1);
  open(a_);
  EXPECT_EQ(write(0, 4, 0x11223344).answer, HOOKLINE_PASS);
  EXPECT_THAT(journal_, ElementsAre("a write 0x2+1"));
}

TEST_F(OpenDeviceTest, UnalignedOrOddAccessesAreNoUnits) {
  a_.trap(0, 0, 0x100);
  open(a_);
  EXPECT_EQ(read(2, 4).answer, -EINVAL);
  EXPECT_EQ(read(0, 3).answer, -EINVAL);
  EXPECT_EQ(read(0, 0).answer, -EINVAL);
  EXPECT_TRUE(journal_.empty());
}

// ---- the rest of the chain

TEST_F(OpenDeviceTest, TheRestRunsBehindTheLinkThatAsksAndCanBeEdited) {
  for (FakePlugin* plugin : {&a_, &b_, &c_}) plugin->trap(0, 0, 4);
  b_.on_access = [this](hookline_access& a) {
    if (a.op == HOOKLINE_OP_WRITE) a.value &= 0xff;  // what is behind gets this
    EXPECT_EQ(b_.host->run_rest(b_.device, &a), 0);
    if (a.op == HOOKLINE_OP_READ) a.value |= 0x100;
    return HOOKLINE_HANDLED;
  };
  open(a_, b_, c_);
  EXPECT_EQ(write(0, 4, 0xabcd).answer, HOOKLINE_HANDLED);
  EXPECT_EQ(read(0, 4).answer, HOOKLINE_HANDLED);
  EXPECT_EQ(access_.value, 0x1cdU);
  EXPECT_THAT(journal_,
              ElementsAre("a write 0x0+4", "b write 0x0+4", "c write 0x0+4", "device write 0x0+4=0xcd",
                          "a read 0x0+4", "b read 0x0+4", "c read 0x0+4", "device read 0x0+4"));
}

TEST_F(OpenDeviceTest, AFailureBehindNamesBothPlugins) {
  for (FakePlugin* plugin : {&a_, &b_}) plugin->trap(0, 0, 4);
  a_.on_access = [this](hookline_access& a) { return a_.host->run_rest(a_.device, &a); };
  b_.on_access = answer(-EBUSY);
  open(a_, b_);
  const Outcome outcome = read(0, 4);
  EXPECT_EQ(outcome.answer, -EBUSY);
  EXPECT_EQ(outcome.link, 0U);
  EXPECT_THAT(outcome.text, AllOf(HasSubstr("plugin \"a\""), HasSubstr("plugin \"b\"")));
}

TEST_F(OpenDeviceTest, TheRestIsOfThisAccessOnly) {
  a_.trap(0, 0, 0x20);
  hookline_access kept{};
  a_.on_access = [&](hookline_access& a) {
    kept = a;
    hookline_access other = a;
    other.offset = 0x10;
    return a_.host->run_rest(a_.device, &other);
  };
  open(a_);
  EXPECT_EQ(read(0, 4).answer, -EINVAL);
  EXPECT_EQ(a_.host->run_rest(a_.device, &kept), -EINVAL) << "after access()";
  EXPECT_THAT(journal_, ElementsAre("a read 0x0+4"));
}

TEST_F(OpenDeviceTest, AnIoctlsRestRunsInTheCallerAndIsAskedAfterBackwards) {
  for (FakePlugin* plugin : {&a_, &b_, &c_}) plugin->abi.ioctls = 1U << 10;
  a_.on_ioctl = [](hookline_ioctl& request) {
    if (!(request.flags & HOOKLINE_IOCTL_AFTER)) return HOOKLINE_RUN_REST;
    EXPECT_EQ(request.result, -EAGAIN) << "c was asked before";
    request.result = 0;
    return HOOKLINE_HANDLED;
  };
  c_.on_ioctl = [](hookline_ioctl& request) {
    if (!(request.flags & HOOKLINE_IOCTL_AFTER)) return HOOKLINE_PASS;
    request.result = -EAGAIN;
    return HOOKLINE_HANDLED;
  };
  open(a_, b_, c_);
  hookline_ioctl request{};
  request.op = HOOKLINE_OP_IOCTL;
  request.number = 10;
  EXPECT_EQ(open_->ioctl(request).answer, HOOKLINE_RUN_REST);
  request.flags = HOOKLINE_IOCTL_AFTER;
  request.result = -EIO;
  EXPECT_EQ(open_->ioctl(request).answer, HOOKLINE_HANDLED);
  EXPECT_EQ(request.result, 0);
  EXPECT_THAT(journal_, ElementsAre("a ioctl", "b ioctl", "c ioctl", "c after", "b after", "a after"));
}

TEST_F(OpenDeviceTest, AnIoctlsRestThatAPluginAnswersNeedsNoCaller) {
  for (FakePlugin* plugin : {&a_, &b_}) plugin->abi.ioctls = 1U << 10;
  a_.on_ioctl = [](hookline_ioctl& request) {
    if (!(request.flags & HOOKLINE_IOCTL_AFTER)) return HOOKLINE_RUN_REST;
    EXPECT_EQ(request.result, -EPERM);
    return HOOKLINE_PASS;
  };
  b_.on_ioctl = answer(-EPERM);
  open(a_, b_);
  hookline_ioctl request{};
  request.op = HOOKLINE_OP_IOCTL;
  request.number = 10;
  const Outcome outcome = open_->ioctl(request);
  EXPECT_EQ(outcome.answer, -EPERM);
  EXPECT_EQ(outcome.link, 1U);
  EXPECT_THAT(journal_, ElementsAre("a ioctl", "b ioctl", "a after"));
}

// ---- failures

TEST_F(OpenDeviceTest, WhatAPluginThrowsBecomesAnErrnoAndAText) {
  a_.trap(0, 0, 4);
  open(a_);
  a_.on_access = [](hookline_access&) -> int { throw std::runtime_error("register file on fire"); };
  Outcome outcome = read(0, 4);
  EXPECT_EQ(outcome.answer, -EIO);
  EXPECT_EQ(outcome.text, "plugin \"a\": access(): register file on fire");
  a_.on_access = [](hookline_access&) -> int { throw 42; };
  outcome = read(0, 4);
  EXPECT_EQ(outcome.answer, -EIO);
  EXPECT_THAT(outcome.text, HasSubstr("no std::exception"));
}

TEST_F(OpenDeviceTest, AFailureWithoutATextGetsTheErrnos) {
  a_.trap(0, 0, 4);
  a_.on_access = answer(-ENOSPC);
  open(a_);
  EXPECT_EQ(read(0, 4).text, "plugin \"a\": access(): No space left on device");
  a_.on_access = answer(-100000);
  EXPECT_EQ(read(0, 4).answer, -EIO);
}

TEST_F(OpenDeviceTest, TheTextOfAnEarlierFailureIsForgotten) {
  a_.trap(0, 0, 4);
  a_.on_access = [this](hookline_access&) { return a_.host->fail(a_.device, EIO, "the first"); };
  open(a_);
  EXPECT_THAT(read(0, 4).text, HasSubstr("the first"));
  a_.on_access = answer(-EIO);
  EXPECT_THAT(read(0, 4).text, ::testing::Not(HasSubstr("the first")));
}

class Facade final : public Handler {
 public:
  explicit Facade(Device& dev) : dev_(dev) {}
  Answer on_read(Access& a) override {
    if (a.offset == 0) raise(EPROTO, "the mailbox holds garbage");
    if (a.offset == 4) throw std::bad_alloc();
    dev_.read32(0, 0);
    return Answer::handled;
  }

 private:
  Device& dev_;
};
constexpr PluginInfo kFacadeInfo = {
    .name = "facade",
    .version = "1",
    .traps = {{.region = 0, .ops = HOOKLINE_WANT_READ, .offset = 0, .length = 16}}};

TEST_F(OpenDeviceTest, TheFacadesExceptionsKeepErrnoAndReason) {
  const hookline_plugin facade = detail::describe<Facade>(kFacadeInfo);
  const Result<Chain> chain = build_chain({*make_link(facade)});
  const auto opened = OpenDevice::open(*chain, device_, {});
  ASSERT_TRUE(opened);
  const auto read_at = [&](uint64_t offset) {
    hookline_access a{};
    a.offset = offset;
    a.length = 4;
    return (*opened)->access(a);
  };
  EXPECT_EQ(read_at(0).answer, -EPROTO);
  EXPECT_THAT(read_at(0).text, AllOf(HasSubstr("\"facade\""), HasSubstr("the mailbox holds garbage")));
  EXPECT_EQ(read_at(4).answer, -ENOMEM);
  device_.failing = Error{ESHUTDOWN, "the device has been closed"};
  EXPECT_EQ(read_at(8).answer, -ESHUTDOWN);
  EXPECT_THAT(read_at(8).text, HasSubstr("the device has been closed"));
}

TEST_F(OpenDeviceTest, LogLinesCarryThePluginsName) {
  open(a_, b_);
  b_.host->log(b_.device, HOOKLINE_LOG_INFO, "hello");
  EXPECT_THAT(log_, ElementsAre("b: hello"));
}

TEST_F(OpenDeviceTest, EachLinkReachesItsOwnSliceOfTheShadow) {
  a_.abi.shadow_size = 16;
  b_.abi.shadow_size = 32;
  open(a_, b_);
  void *of_a = nullptr, *of_b = nullptr;
  size_t length = 0;
  ASSERT_EQ(a_.host->shadow(a_.device, &of_a, &length), 0);
  EXPECT_EQ(length, 16U);
  ASSERT_EQ(b_.host->shadow(b_.device, &of_b, &length), 0);
  EXPECT_EQ(length, 32U);
  EXPECT_GE(static_cast<std::byte*>(of_b) - static_cast<std::byte*>(of_a), 16);
  EXPECT_LE(static_cast<std::byte*>(of_b) + 32, device_.shadow_bytes.data() + device_.shadow_bytes.size());

  device_.shadow_bytes.resize(8);
  EXPECT_EQ(b_.host->shadow(b_.device, &of_b, &length), -ENOSPC);
}

}  // namespace
}  // namespace hookline
