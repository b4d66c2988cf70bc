// SPDX-License-Identifier: Apache-2.0
//
// The worker's answers, slot by slot; the descriptors behind them are tested on a real kernel.
#include <hookline/hook_serve.hpp>

#include <chrono>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include "fake_plugin.hpp"

namespace hookline {
namespace {

using test::FakePlugin;
using test::links;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RequestServerTest : public ::testing::Test {
 protected:
  RequestServerTest() {
    plugin_.own_migration().trap(0, 0x10, 8);
    plugin_.abi.ioctls = 1U << 10;
  }
  /// The device's values, as a kernel module would keep them.
  struct Store final : ParameterStore {
    Result<std::vector<std::string>> parameters() override { return values; }
    Result<void> set_parameters(std::span<const std::string> given) override {
      if (refuses) return fail(EBUSY, "not now");
      values.assign(given.begin(), given.end());
      return {};
    }
    std::vector<std::string> values{"2", "1"};
    bool refuses = false;
  };

  void open(ParameterStore* store = nullptr) {
    chain_ = std::make_unique<Chain>(*build_chain(links(plugin_)));
    device_ = std::move(*OpenDevice::open(*chain_, access_, {}));
    server_ = std::make_unique<RequestServer>(
        *device_, stream_,
        [this](uint32_t, std::string_view, std::string_view text) { log_.emplace_back(text); }, store);
    journal_.clear();
  }
  vfio_pci_hooks_slot& ask(uint32_t op, uint32_t flags = 0, uint32_t index = 0, uint32_t length = 0,
                           uint64_t offset = 0) {
    slot_.seq += 1;
    slot_.op = op;
    slot_.flags = flags;
    slot_.index = index;
    slot_.length = length;
    slot_.offset = offset;
    std::memset(&slot_.answer_seq, 0xee,
                offsetof(vfio_pci_hooks_slot, data) - offsetof(vfio_pci_hooks_slot, answer_seq));
    if (flags & VFIO_PCI_HOOKS_REQ_AFTER) slot_.answer = rest_result_;
    server_->answer(slot_);
    EXPECT_EQ(slot_.answer_seq, slot_.seq);
    return slot_;
  }

  test::Journal journal_, log_;
  FakePlugin plugin_{"plugin", journal_};
  test::FakeAccess access_{journal_};
  std::unique_ptr<Chain> chain_;
  std::unique_ptr<OpenDevice> device_;
  std::vector<std::byte> stream_ = std::vector<std::byte>(VFIO_PCI_HOOKS_STREAM_SIZE);
  std::unique_ptr<RequestServer> server_;
  vfio_pci_hooks_slot slot_{};
  int rest_result_ = 0;
};

TEST_F(RequestServerTest, AccessesWalkTheChain) {
  open();
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_READ, 0, 0, 4, 0x10).answer, VFIO_PCI_HOOKS_PASS);
  plugin_.on_access = [](hookline_access& a) {
    EXPECT_EQ(a.value, a.op == HOOKLINE_OP_WRITE ? 0x0102U : 0U);
    a.value = 0xa1b2c3d4;
    return HOOKLINE_HANDLED;
  };
  const vfio_pci_hooks_slot& read = ask(VFIO_PCI_HOOKS_REQ_READ, 0, 0, 4, 0x10);
  EXPECT_EQ(read.answer, VFIO_PCI_HOOKS_HANDLED);
  EXPECT_EQ(read.answer_length, 4U);
  EXPECT_EQ(read.data[0], 0xd4);
  EXPECT_EQ(read.data[3], 0xa1);
  slot_.data[0] = 0x02;
  slot_.data[1] = 0x01;
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_WRITE, 0, 0, 2, 0x14).answer, VFIO_PCI_HOOKS_HANDLED);
  EXPECT_EQ(slot_.answer_length, 0U);
  plugin_.on_access = [](hookline_access&) { return -EACCES; };
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_WRITE, 0, 0, 2, 0x14).answer, -EACCES);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("\"plugin\"")));
}

TEST_F(RequestServerTest, WatchingAnswersWhatComesAndSaysWhenToCall) {
  using namespace std::chrono_literals;
  using Watched = RequestServer::Watched;
  open();
  plugin_.on_access = [this](hookline_access& a) {
    a.value = 0xa1b2c3d4;
    if (a.offset == 0x14) slot_.watch = VFIO_PCI_HOOKS_WATCH_CALL;  // the kernel's thread has gone to sleep
    return HOOKLINE_HANDLED;
  };
  slot_.op = VFIO_PCI_HOOKS_REQ_READ;
  slot_.length = 4;
  slot_.offset = 0x10;
  slot_.seq = 7;
  slot_.watch = VFIO_PCI_HOOKS_WATCH_REQUEST;
  EXPECT_EQ(server_->watch(slot_, 10s), Watched::answered);
  EXPECT_EQ(slot_.watch, uint32_t{VFIO_PCI_HOOKS_WATCH_ANSWERED});
  EXPECT_EQ(slot_.answer_seq, 7U);
  EXPECT_EQ(slot_.data[0], 0xd4);

  EXPECT_EQ(server_->watch(slot_, 1us), Watched::idle) << "the kernel has not taken it yet";
  slot_.watch = VFIO_PCI_HOOKS_WATCH_IDLE;
  EXPECT_EQ(server_->watch(slot_, 1us), Watched::idle);
  EXPECT_EQ(slot_.watch, uint32_t{VFIO_PCI_HOOKS_WATCH_IDLE});

  slot_.offset = 0x14;
  slot_.watch = VFIO_PCI_HOOKS_WATCH_REQUEST;
  EXPECT_EQ(server_->watch(slot_, 10s), Watched::hand_over);
  EXPECT_EQ(slot_.watch, uint32_t{VFIO_PCI_HOOKS_WATCH_CALL});
  EXPECT_EQ(server_->watch(slot_, 10s), Watched::call);
  slot_ = {};
  EXPECT_EQ(server_->watch(slot_, 10s), Watched::call) << "memory that was taken away";
}

TEST_F(RequestServerTest, AnIoctlGoesThroughItsThreeAnswers) {
  plugin_.on_ioctl = [](hookline_ioctl& request) {
    if (!(request.flags & HOOKLINE_IOCTL_AFTER)) return HOOKLINE_RUN_REST;
    if (request.result < 0) return HOOKLINE_PASS;
    request.data[0] = 9;
    return HOOKLINE_HANDLED;
  };
  open();
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_IOCTL, 0, 10, 16).answer, VFIO_PCI_HOOKS_RUN_REST);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_IOCTL, VFIO_PCI_HOOKS_REQ_AFTER, 10, 16).answer, VFIO_PCI_HOOKS_HANDLED);
  EXPECT_EQ(slot_.answer_length, 16U);
  EXPECT_EQ(slot_.data[0], 9);
  rest_result_ = -EBUSY;
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_IOCTL, VFIO_PCI_HOOKS_REQ_AFTER, 10, 16).answer, VFIO_PCI_HOOKS_PASS);
}

TEST_F(RequestServerTest, SavesInTwoPhasesAndLoadsWhatItSaved) {
  uint32_t value = 0;
  plugin_.on_save = [&](hookline_writer* out) { return plugin_.host->put(out, "value", "\1\2\3", 4); };
  plugin_.on_load = [&](hookline_reader* in) {
    return plugin_.host->get(in, "value", &value, sizeof(value));
  };
  open();
  std::vector<std::byte> saved;
  const auto keep = [&] {
    saved.insert(saved.end(), stream_.begin(), stream_.begin() + slot_.answer_length);
  };

  ask(VFIO_PCI_HOOKS_REQ_SAVE, VFIO_PCI_HOOKS_REQ_BEGIN, VFIO_PCI_HOOKS_PHASE_PRE_COPY);
  EXPECT_EQ(slot_.answer, 0);
  EXPECT_GT(slot_.answer_length, 0U);
  EXPECT_EQ(slot_.answer_flags, VFIO_PCI_HOOKS_ANSWER_END);
  EXPECT_EQ(slot_.initial_bytes, 0U);
  keep();
  ask(VFIO_PCI_HOOKS_REQ_SAVE, 0, VFIO_PCI_HOOKS_PHASE_STOP_COPY);
  EXPECT_EQ(slot_.answer_flags, VFIO_PCI_HOOKS_ANSWER_END);
  keep();

  const auto load = [&](size_t from, size_t length, uint32_t flags) {
    std::copy_n(saved.begin() + static_cast<ptrdiff_t>(from), length, stream_.begin());
    return ask(VFIO_PCI_HOOKS_REQ_LOAD, flags, 0, static_cast<uint32_t>(length)).answer;
  };
  EXPECT_EQ(load(0, 30, VFIO_PCI_HOOKS_REQ_BEGIN), 0);
  EXPECT_EQ(slot_.answer_flags, 0U);
  EXPECT_EQ(slot_.dirty_bytes, 0U) << "the match record may be refused";
  EXPECT_EQ(load(30, saved.size() - 30, 0), 0);
  EXPECT_EQ(slot_.answer_flags, VFIO_PCI_HOOKS_ANSWER_END);
  EXPECT_EQ(value, 0x030201U);
  EXPECT_LT(load(0, 1, 0), 0) << "bytes behind the trailer";
}

// A promise: whoever writes these bytes need not wait for an answer to them.
TEST_F(RequestServerTest, MP2_TheAnswerToALoadSaysHowManyBytesBringNoVerdict) {
  constexpr size_t kState = 4096;
  const std::string state(kState, 's');
  plugin_.on_save = [&](hookline_writer* out) {
    return plugin_.host->put(out, "state", state.data(), state.size());
  };
  open();
  ask(VFIO_PCI_HOOKS_REQ_SAVE, VFIO_PCI_HOOKS_REQ_BEGIN, VFIO_PCI_HOOKS_PHASE_STOP_COPY);
  ASSERT_EQ(slot_.answer_flags, VFIO_PCI_HOOKS_ANSWER_END);
  const std::vector<std::byte> saved(stream_.begin(), stream_.begin() + slot_.answer_length);
  uint64_t ahead = 0;
  for (size_t at = 0; at < saved.size() && ahead == 0; ++at) {
    stream_[0] = saved[at];
    ASSERT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, at ? 0 : VFIO_PCI_HOOKS_REQ_BEGIN, 0, 1).answer, 0);
    ahead = slot_.dirty_bytes;
  }
  ASSERT_GE(ahead, kState) << "the section but for the last byte of its checksum";
  // Whatever comes there.
  std::ranges::fill(stream_, std::byte{0xff});
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, 0, 0, static_cast<uint32_t>(ahead)).answer, 0);
  EXPECT_EQ(slot_.dirty_bytes, 0U);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, 0, 0, 1).answer, -EBADMSG);
  EXPECT_EQ(slot_.dirty_bytes, 0U);
}

// As a kernel module asks that has a ring of slices: each answer where, and no longer than, it says.
TEST_F(RequestServerTest, MP2_AStreamGoesThroughSlices) {
  uint64_t value = 0;
  plugin_.on_save = [&](hookline_writer* out) {
    return plugin_.host->put(out, "value", "\1\2\3\4\5\6\7", 8);
  };
  plugin_.on_load = [&](hookline_reader* in) {
    return plugin_.host->get(in, "value", &value, sizeof(value));
  };
  open();
  constexpr uint32_t kRoom = 7;
  const auto at = [](size_t turn) {
    return turn % VFIO_PCI_HOOKS_STREAM_SLICES * VFIO_PCI_HOOKS_STREAM_SLICE;
  };
  std::vector<std::byte> saved;
  for (size_t turn = 0; turn == 0 || !(slot_.answer_flags & VFIO_PCI_HOOKS_ANSWER_END); ++turn) {
    std::ranges::fill(stream_, std::byte{0xee});
    ask(VFIO_PCI_HOOKS_REQ_SAVE, turn ? 0 : VFIO_PCI_HOOKS_REQ_BEGIN, VFIO_PCI_HOOKS_PHASE_STOP_COPY, kRoom,
        at(turn));
    ASSERT_EQ(slot_.answer, 0);
    ASSERT_LE(slot_.answer_length, kRoom);
    const auto slice = stream_.begin() + static_cast<ptrdiff_t>(at(turn));
    saved.insert(saved.end(), slice, slice + slot_.answer_length);
    EXPECT_EQ(std::ranges::count(stream_.begin(), slice, std::byte{0xee}), slice - stream_.begin());
    EXPECT_EQ(*(slice + kRoom), std::byte{0xee}) << "what is behind belongs to another slice";
  }
  for (size_t turn = 0; turn * kRoom < saved.size(); ++turn) {
    const size_t length = std::min<size_t>(kRoom, saved.size() - turn * kRoom);
    std::copy_n(saved.begin() + static_cast<ptrdiff_t>(turn * kRoom), length,
                stream_.begin() + static_cast<ptrdiff_t>(at(turn)));
    ASSERT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, turn ? 0 : VFIO_PCI_HOOKS_REQ_BEGIN, 0,
                  static_cast<uint32_t>(length), at(turn))
                  .answer,
              0);
  }
  EXPECT_EQ(slot_.answer_flags, VFIO_PCI_HOOKS_ANSWER_END);
  EXPECT_EQ(value, 0x07060504030201U);
}

TEST_F(RequestServerTest, MP5_BulkIsAnsweredInRoundsWithoutAnEndAndSaysWhatIsLeft) {
  int left = 3;
  plugin_.with_bulk(1 << 20);
  plugin_.on_save_bulk = [&](hookline_writer* out, uint32_t) {
    void* at = nullptr;
    if (left == 0) return 0;
    if (const int ret = plugin_.host->reserve(out, "data", 3000, &at); ret < 0) return ret;
    std::memset(at, left--, 3000);
    return left ? HOOKLINE_MORE : 0;
  };
  plugin_.on_bulk_sizes = [&](uint64_t* initial, uint64_t* dirty) {
    *initial = static_cast<uint64_t>(left) * 3000;
    *dirty = 7;
    return 0;
  };
  open();
  constexpr uint32_t kRoom = 4096;
  ask(VFIO_PCI_HOOKS_REQ_SAVE, VFIO_PCI_HOOKS_REQ_BEGIN, VFIO_PCI_HOOKS_PHASE_PRE_COPY, kRoom);
  EXPECT_EQ(slot_.answer_length, kRoom);
  uint64_t initial = slot_.initial_bytes;
  EXPECT_GT(initial, 3000U);
  uint32_t sent = kRoom;
  for (int i = 0; i < 3; ++i) {
    ask(VFIO_PCI_HOOKS_REQ_SAVE, 0, VFIO_PCI_HOOKS_PHASE_PRE_COPY, kRoom);
    EXPECT_EQ(slot_.answer, 0);
    EXPECT_EQ(slot_.answer_flags, 0U) << "nothing now is not the end";
    EXPECT_LE(slot_.initial_bytes, initial);
    initial = slot_.initial_bytes;
    sent += slot_.answer_length;
  }
  EXPECT_EQ(slot_.answer_length, 0U);
  EXPECT_GT(sent, 9000U);
  EXPECT_EQ(slot_.initial_bytes, 0U);
  EXPECT_EQ(slot_.dirty_bytes, 7U);

  left = 1;
  ask(VFIO_PCI_HOOKS_REQ_SAVE, 0, VFIO_PCI_HOOKS_PHASE_PRE_COPY, kRoom);
  EXPECT_GT(slot_.answer_length, 3000U) << "the next request begins another round";
  left = 1;
  ask(VFIO_PCI_HOOKS_REQ_SAVE, 0, VFIO_PCI_HOOKS_PHASE_STOP_COPY, 1 << 20);
  EXPECT_GT(slot_.answer_length, 3000U);
  EXPECT_EQ(slot_.answer_flags, VFIO_PCI_HOOKS_ANSWER_END);
}

TEST_F(RequestServerTest, AStreamThatAnotherWorkerBeganIsRefused) {
  open();
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_SAVE, 0, VFIO_PCI_HOOKS_PHASE_STOP_COPY).answer, -EIO);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, 0, 0, 1).answer, -EIO);
  ask(VFIO_PCI_HOOKS_REQ_SAVE, VFIO_PCI_HOOKS_REQ_BEGIN, VFIO_PCI_HOOKS_PHASE_PRE_COPY);
  vfio_pci_hooks_next reset{};
  reset.event = VFIO_PCI_HOOKS_EVENT_RESET;
  server_->event(reset);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_SAVE, 0, VFIO_PCI_HOOKS_PHASE_STOP_COPY).answer, -EIO)
      << "a reset ends it, too";
}

TEST_F(RequestServerTest, WhatMakesNoSenseIsRefused) {
  open();
  EXPECT_EQ(ask(99).answer, -EOPNOTSUPP);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_READ, 0, 0, 9, 0x10).answer, -EPROTO);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_IOCTL, 0, 10, sizeof(slot_.data) + 1).answer, -EPROTO);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, VFIO_PCI_HOOKS_REQ_BEGIN, 0, VFIO_PCI_HOOKS_STREAM_SIZE + 1).answer,
            -EPROTO);
  constexpr uint64_t kEnd = VFIO_PCI_HOOKS_STREAM_SIZE;
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, VFIO_PCI_HOOKS_REQ_BEGIN, 0, 2, kEnd - 1).answer, -EPROTO);
  EXPECT_EQ(ask(VFIO_PCI_HOOKS_REQ_LOAD, VFIO_PCI_HOOKS_REQ_BEGIN, 0, 1, ~uint64_t{0}).answer, -EPROTO);
  EXPECT_EQ(log_.size(), 6U);
  EXPECT_TRUE(journal_.empty());
}

TEST_F(RequestServerTest, EventsReachThePlugins) {
  open();
  vfio_pci_hooks_next state{};
  state.event = VFIO_PCI_HOOKS_EVENT_STATE;
  state.from = VFIO_DEVICE_STATE_RUNNING;
  state.to = VFIO_DEVICE_STATE_STOP;
  state.lost = 2;
  server_->event(state);
  EXPECT_THAT(journal_, ElementsAre("plugin state 2>1"));
  EXPECT_THAT(log_, ElementsAre(HasSubstr("2 events")));
}

class ParameterServerTest : public RequestServerTest {
 protected:
  ParameterServerTest() {
    plugin_.parameter({"state_version", "Format of the state", "2", "1", "1|2",
                       HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0});
    plugin_.parameter({"queues", "Queues the guest sees", "1", "1", "1-8", 0, 0});
    plugin_.abi.migration_version = "2";
    plugin_.abi.reads = "1|2";
    plugin_.on_save = [this](hookline_writer* out) {
      seen_ = plugin_.ask(0) + " " + plugin_.ask(1);
      return plugin_.host->put(out, "value", "\1\2\3", 4);
    };
    plugin_.on_load = [this](hookline_reader* in) {
      uint32_t value = 0;
      return plugin_.host->get(in, "value", &value, sizeof(value));
    };
  }
  std::vector<std::byte> save() {
    ask(VFIO_PCI_HOOKS_REQ_SAVE, VFIO_PCI_HOOKS_REQ_BEGIN, VFIO_PCI_HOOKS_PHASE_STOP_COPY);
    EXPECT_EQ(slot_.answer, 0);
    return {stream_.begin(), stream_.begin() + slot_.answer_length};
  }
  int load(const std::vector<std::byte>& saved) {
    std::ranges::copy(saved, stream_.begin());
    return ask(VFIO_PCI_HOOKS_REQ_LOAD, VFIO_PCI_HOOKS_REQ_BEGIN, 0, static_cast<uint32_t>(saved.size()))
        .answer;
  }
  Store store_;
  std::string seen_;
};

TEST_F(ParameterServerTest, MM6_AStreamIsSavedWithTheValuesOfItsBeginning) {
  open(&store_);
  save();
  EXPECT_EQ(seen_, "2 1");
  store_.values = {"1", "8"};
  save();
  EXPECT_EQ(seen_, "1 8");
}

TEST_F(ParameterServerTest, MM6_ACallbackBetweenStreamsSeesWhatAnEventTold) {
  open(&store_);
  store_.values = {"1", "8"};
  vfio_pci_hooks_next changed{};
  changed.event = VFIO_PCI_HOOKS_EVENT_PARAMETERS;
  server_->event(changed);
  EXPECT_TRUE(journal_.empty()) << "plugins of ABI 1.1 know of no such event";
  EXPECT_EQ(plugin_.ask(1), "8");
  // An event that was lost may have been that one.
  store_.values = {"1", "4"};
  vfio_pci_hooks_next other{};
  other.event = VFIO_PCI_HOOKS_EVENT_RESET;
  other.lost = 1;
  server_->event(other);
  EXPECT_EQ(plugin_.ask(1), "4");
}

TEST_F(ParameterServerTest, MM5_ALoadSetsTheSourcesValuesOrFails) {
  open(&store_);
  store_.values = {"1", "4"};
  const std::vector<std::byte> saved = save();
  store_.values = {"2", "1"};
  EXPECT_EQ(load(saved), 0);
  EXPECT_EQ(slot_.answer_flags, VFIO_PCI_HOOKS_ANSWER_END);
  EXPECT_THAT(store_.values, ElementsAre("1", "4"));

  store_.values = {"2", "1"};
  store_.refuses = true;
  EXPECT_EQ(load(saved), -EBUSY);
  EXPECT_THAT(store_.values, ElementsAre("2", "1"));
}

// Where the destination has no chain its log is empty: the source's says where to look.
TEST_F(RequestServerTest, RL2_AMigrationThatEndsBeforeTheStopIsInTheLog) {
  open();
  vfio_pci_hooks_next state{};
  state.event = VFIO_PCI_HOOKS_EVENT_STATE;
  state.from = VFIO_DEVICE_STATE_RUNNING;
  state.to = VFIO_DEVICE_STATE_PRE_COPY;
  server_->event(state);
  EXPECT_TRUE(log_.empty());
  std::swap(state.from, state.to);
  server_->event(state);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("the destination refused it, whose logs say why")));
}

}  // namespace
}  // namespace hookline
