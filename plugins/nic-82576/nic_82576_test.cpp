// SPDX-License-Identifier: Apache-2.0
//
// The plugin on two models of the device: a driver in "guest memory", which both share, moves with its
// function. The destination has had another guest before and keeps all its registers, so that whatever is not
// restored shows.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <hookline/fields.hpp>
#include <hookline/software_device.hpp>

#include "model/vf_82576.hpp"
#include "tests/support/icmp_peer.hpp"
#include "tests/support/vf_driver.hpp"

namespace hookline {
namespace {

using namespace hookline::testing;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using enum MigrationState;
using Bytes = std::vector<std::byte>;

constexpr Host kGuest{{2, 0, 0, 0, 0, 1}, 0x0a000001}, kFormer{{2, 0, 0, 0, 0, 7}, 0x0a000007};
constexpr Host kPeer{{2, 0, 0, 0, 0, 9}, 0x0a000009};
constexpr uint64_t kGuestIova = 0x10000, kFormerIova = 0x100000;

nic82576::Vf* models[2];  // of the running test: functions 0 and 1
bool misplaced_bar;

hookline_model observed_model() {
  hookline_model model = hookline_model_v1;
  model.create = [](const hookline_model_host* host, uint32_t index) {
    void* self = hookline_model_v1.create(host, index);
    models[index] = static_cast<nic82576::Vf*>(self);
    models[index]->reads_zero = misplaced_bar;
    return self;
  };
  return model;
}
const hookline_model kModel = observed_model();

class SoftwareBar final : public BarPort {
 public:
  explicit SoftwareBar(SoftwareDevice& device) : device_(device) {}
  uint32_t read32(uint32_t offset) override {
    const Result<uint32_t> value = device_.read32(0, offset);
    if (!value) throw std::runtime_error(value.error().text);
    return *value;
  }
  void write32(uint32_t offset, uint32_t value) override {
    if (const Result<void> ok = device_.write32(0, offset, value); !ok)
      throw std::runtime_error(ok.error().text);
  }
  void pause() override {}

 private:
  SoftwareDevice& device_;
};

/// `ip link set PF vf N mac`, as far as the configuration lets the supervisor do it.
class Administrator final : public PfPort {
 public:
  Result<void> request(hookline_pf_request& request) override {
    ++asked;
    if (!allowed) return fail(EPERM, "not granted");
    std::copy_n(request.mac, 6, models[1]->pf().policy.admin_mac.begin());
    return {};
  }
  bool allowed = true;
  int asked = 0;
};

class Nic82576 : public ::testing::Test {
 protected:
  void SetUp() override { misplaced_bar = false; }

  Result<std::unique_ptr<SoftwareDevice>> try_make(uint32_t index, SoftwareDevice::Options options = {}) {
    options.index = index;
    options.memory = memory_;
    options.on_transmit = [this, index](std::span<const std::byte> frame) {
      wire_[index].emplace_back(frame.begin(), frame.end());
    };
    options.on_interrupt = [this, index](uint32_t vector) { ++interrupts_[index][vector]; };
    options.log = [this](uint32_t, std::string_view, std::string_view text) { log_ += text; };
    Result<Link> link = make_link(hookline_plugin_v1);
    if (!link) return fail(link.error());
    std::vector<Link> links;
    links.push_back(std::move(*link));
    Result<Chain> chain = build_chain(std::move(links));
    if (!chain) return fail(chain.error());
    return SoftwareDevice::create(kModel, std::move(*chain), std::move(options));
  }

  std::unique_ptr<SoftwareDevice> make(uint32_t index,
                                       SoftwareDevice::Grant grant = SoftwareDevice::Grant::read,
                                       PfPort* pf = nullptr) {
    SoftwareDevice::Options options;
    options.grant = grant;
    options.pf = pf;
    auto device = try_make(index, std::move(options));
    if (!device) throw std::runtime_error(device.error().text);
    return std::move(*device);
  }

  DmaMemory guest_memory() {
    return {std::span(memory_).subspan(kGuestIova, VfDriver::kMemoryBytes), kGuestIova};
  }
  DmaMemory former_memory() {
    return {std::span(memory_).subspan(kFormerIova, VfDriver::kMemoryBytes), kFormerIova};
  }

  /// A former guest of this function, with everything other than the one that is to come.
  void poison(SoftwareDevice& device, uint32_t index) {
    SoftwareBar bar(device);
    VfDriver former =
        VfDriver::init(bar, former_memory(), {.mac = kFormer.mac, .queue = 1, .max_frame = 600});
    ASSERT_TRUE(former.set_vlan(77, true));
    ASSERT_TRUE(former.set_multicast({{{1, 0, 0x5e, 7, 7, 7}}}));
    for (int i = 0; i < 9; ++i) {
      device.receive(echo_request(kPeer, kFormer, 1, 1));
      former.send(echo_request(kFormer, kPeer, 1, 1), {.vlan = 77});
    }
    for (uint32_t base : {0x2800u, 0x2900u, 0x3800u, 0x3900u}) {
      write(device, base + 0x28, 0x00010203);
      for (uint32_t at : {0x00u, 0x04u, 0x0cu, 0x14u, 0x38u, 0x3cu}) write(device, base + at, 0x5a5a5a80);
      write(device, base + 0x08, 0x1000);
      for (uint32_t at : {0x10u, 0x18u}) write(device, base + at, 0x33);
    }
    for (uint32_t at = 0x1680; at < 0x168c; at += 4) write(device, at, 0x1234);
    write(device, 0x152c, 0), write(device, 0x1530, 0), write(device, 0x1528, 7), write(device, 0x1740, 0x81);
    for (uint32_t at = 0x800; at < 0x840; at += 4) write(device, at, 0xdeadbeef);
    wire_[index].clear();
    interrupts_[index] = {};
  }

  /// Everything the guest sent so far is answered.
  void answer_all(SoftwareDevice& device, uint32_t index) {
    for (const Frame& frame : std::exchange(wire_[index], {}))
      if (const auto reply = answer(kPeer, frame)) device.receive(*reply);
  }

  bool ping(VfDriver& nic, SoftwareDevice& device, uint32_t index, uint16_t sequence) {
    if (!nic.send(echo_request(kGuest, kPeer, 42, sequence))) return false;
    answer_all(device, index);
    const auto frame = nic.receive();
    const auto echo = frame ? parse_echo_reply(frame->bytes) : std::nullopt;
    return echo && echo->id == 42 && echo->sequence == sequence;
  }

  static Result<void> try_move(SoftwareDevice& from, SoftwareDevice& to, size_t cut = 65536) {
    if (const Result<void> ok = from.set_state(stop_copy); !ok) return ok;
    const Result<Bytes> stream = from.save_all(cut);
    if (!stream) return fail(stream.error());
    if (const Result<void> ok = to.set_state(resuming); !ok) return ok;
    for (size_t at = 0; at < stream->size(); at += cut)
      if (const Result<void> ok =
              to.write_state(std::span(*stream).subspan(at, std::min(cut, stream->size() - at)));
          !ok)
        return ok;
    return to.set_state(running);
  }
  static void move(SoftwareDevice& from, SoftwareDevice& to, size_t cut = 65536) {
    const Result<void> moved = try_move(from, to, cut);
    ASSERT_TRUE(moved) << moved.error().text;
  }

  static uint32_t read(SoftwareDevice& device, uint32_t at) {
    return static_cast<uint32_t>(*device.behind().read(0, at, 4));
  }
  static void write(SoftwareDevice& device, uint32_t at, uint32_t value) {
    ASSERT_TRUE(device.behind().write(0, at, 4, value));
  }

  Bytes memory_ = Bytes(2 << 20);
  std::deque<Frame> wire_[2];
  std::array<int, 3> interrupts_[2] = {};
  std::string log_;
};

// ---- a guest on the move

TEST_F(Nic82576, AGuestInMidLifeMovesWithWhatIsPending) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  poison(*target, 1);
  for (uint16_t i = 0; i < 100; ++i) ASSERT_TRUE(ping(nic, *source, 0, i));

  for (uint16_t i = 0; i < 11; ++i) ASSERT_TRUE(source->receive(echo_request(kPeer, kGuest, 7, i)));
  ASSERT_TRUE(source->set_state(stop));
  for (uint16_t i = 0; i < 3; ++i) ASSERT_TRUE(nic.send(echo_request(kGuest, kPeer, 8, i)));
  EXPECT_FALSE(source->receive(echo_request(kPeer, kGuest, 7, 99)));
  EXPECT_TRUE(wire_[0].empty());
  const RingPositions before = nic.positions();

  move(*source, *target);
  source->reset();
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_EQ(moved.mac(), kGuest.mac);
  const RingPositions after = moved.positions();
  EXPECT_EQ(std::tie(after.rx_head, after.rx_tail), std::tie(before.rx_head, before.rx_tail));
  EXPECT_EQ(after.tx_tail, before.tx_tail);

  EXPECT_TRUE(wire_[0].empty());
  ASSERT_EQ(wire_[1].size(), 3u);  // once, and only by the destination
  for (const Frame& frame : wire_[1]) EXPECT_TRUE(answer(kPeer, frame));
  for (uint16_t i = 0; i < 11; ++i) {
    const auto frame = moved.receive();
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->bytes, echo_request(kPeer, kGuest, 7, i));
  }
  EXPECT_FALSE(moved.receive());
  wire_[1].clear();
  for (uint16_t i = 0; i < 100; ++i) ASSERT_TRUE(ping(moved, *target, 1, i));
}

TEST_F(Nic82576, EveryRegisterArrives) {
  auto source = make(0), target = make(1);
  SoftwareBar bar(*source);
  VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  for (uint32_t base : {0x2900u, 0x3900u}) {  // the second queue is set up, but off
    write(*source, base, 0x12345680), write(*source, base + 4, 1), write(*source, base + 8, 0x200);
    write(*source, base + 0x10, 5), write(*source, base + 0x18, 6), write(*source, base + 0x28, 0x00020103);
  }
  write(*source, 0x290c, 0x82000001), write(*source, 0x3914, 0x2200);
  write(*source, 0x3838, 0x1001), write(*source, 0x383c, 2), write(*source, 0x3938, 0x2001),
      write(*source, 0x393c, 3);
  write(*source, 0x1688, 0x100), write(*source, 0x3814, 0x2a00);
  write(*source, 0x2804, 1), write(*source, 0x3804, 2);
  write(*source, 0x2814, 0xaa00), write(*source, 0x2914, 0x2200);
  write(*source, 0x800, 0x11111111), write(*source, 0x83c, 0x22222222);
  poison(*target, 1);

  std::vector<uint32_t> registers = {0x152c, 0x1530, 0x1680, 0x1684, 0x1688, 0x1700, 0x1740};
  for (uint32_t base : {0x2800u, 0x2900u, 0x3800u, 0x3900u})
    for (uint32_t at : {0x00u, 0x04u, 0x08u, 0x0cu, 0x10u, 0x14u, 0x18u, 0x28u, 0x38u, 0x3cu})
      registers.push_back(base + at);
  for (uint32_t at = 0x800; at < 0x840; at += 4) registers.push_back(at);
  std::vector<uint32_t> expected;
  for (uint32_t at : registers) expected.push_back(read(*source, at));

  move(*source, *target);
  for (size_t i = 0; i < registers.size(); ++i)
    EXPECT_EQ(read(*target, registers[i]), expected[i]) << "register 0x" << std::hex << registers[i];
}

class Cuts : public Nic82576, public ::testing::WithParamInterface<size_t> {};

TEST_P(Cuts, MoveTheFunction) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(ping(nic, *source, 0, 1));
  poison(*target, 1);
  move(*source, *target, GetParam());
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_TRUE(ping(moved, *target, 1, 2));
}
INSTANTIATE_TEST_SUITE_P(Nic82576, Cuts, ::testing::Values(1, 7, 509, 4096, 1 << 20));

TEST_F(Nic82576, AHundredTimesBackAndForth) {
  std::unique_ptr<SoftwareDevice> devices[2] = {make(0), make(1)};
  SoftwareBar bars[2] = {SoftwareBar(*devices[0]), SoftwareBar(*devices[1])};
  VfDriver nic = VfDriver::init(bars[0], guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(nic.set_vlan(5, true));
  poison(*devices[1], 1);
  uint32_t received = nic.good_received();
  for (uint16_t i = 0; i < 100; ++i) {
    const uint32_t from = i % 2, to = 1 - from;
    ASSERT_TRUE(ping(nic, *devices[from], from, i));
    ASSERT_TRUE(devices[from]->receive(echo_request(kPeer, kGuest, 7, i)));  // unread at the stop
    move(*devices[from], *devices[to]);
    if (i % 3 == 0) devices[from]->reset();
    nic = VfDriver::adopt(bars[to], guest_memory());
    const auto pending = nic.receive();
    ASSERT_TRUE(pending);
    ASSERT_EQ(pending->bytes, echo_request(kPeer, kGuest, 7, i));
    ASSERT_EQ(nic.good_received() - received, 2u);
    received = nic.good_received();
  }
  EXPECT_TRUE(devices[0]->receive(with_vlan(echo_request(kPeer, kGuest, 7, 1), 5)));
}

// What the plugin and the framework need is a few ms. The best of ten is theirs, whatever else the host has to do.
TEST_F(Nic82576, MP3_TheGuestStandsStillForLessThan50Ms) {
  std::unique_ptr<SoftwareDevice> devices[2] = {make(0), make(1)};
  SoftwareBar bar(*devices[0]);
  VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  auto best = std::chrono::steady_clock::duration::max();
  for (int i = 0; i < 10; ++i) {
    const auto suspend = std::chrono::steady_clock::now();
    move(*devices[i % 2], *devices[1 - i % 2]);
    best = std::min(best, std::chrono::steady_clock::now() - suspend);
  }
  RecordProperty("suspend_to_resume_us", std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(best).count()));
  EXPECT_LT(best, std::chrono::milliseconds(50));
}

TEST_F(Nic82576, TheSecondQueueMovesToo) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac, .queue = 1});
  ASSERT_TRUE(ping(nic, *source, 0, 1));
  move(*source, *target);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_TRUE(ping(moved, *target, 1, 2));
}

TEST_F(Nic82576, AFunctionNoDriverEverUsedMoves) {
  auto source = make(0), target = make(1);
  poison(*target, 1);
  move(*source, *target);
  SoftwareBar here(*target);
  VfDriver nic = VfDriver::init(here, guest_memory(), {.mac = kGuest.mac});
  EXPECT_TRUE(ping(nic, *target, 1, 1));
}

// A paused guest may move on before it ever ran here.
TEST_F(Nic82576, MovesTwiceWithoutRunningInBetween) {
  auto first = make(0), last = make(1);
  SoftwareBar there(*first), here(*last);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(nic.send(echo_request(kGuest, kPeer, 1, 1), {.vlan = 5}));
  wire_[0].clear();
  ASSERT_TRUE(first->set_state(stop_copy));
  const Bytes stream = *first->save_all();
  auto middle = make(0);
  ASSERT_TRUE(middle->set_state(resuming));
  ASSERT_TRUE(middle->write_state(stream));
  ASSERT_TRUE(middle->set_state(stop));
  move(*middle, *last);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_TRUE(ping(moved, *last, 1, 2));
}

// ---- stop, cont, cancel

TEST_F(Nic82576, AStoppedFunctionIsQuietAndLosesNoInterrupt) {
  auto device = make(0);
  SoftwareBar bar(*device);
  VfDriver nic = VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(ping(nic, *device, 0, 1));
  nic.unmask(7);
  interrupts_[0] = {};
  ASSERT_TRUE(device->set_state(stop));
  models[0]->pf_notify();
  EXPECT_FALSE(device->receive(echo_request(kPeer, kGuest, 1, 1)));
  EXPECT_THAT(interrupts_[0], ElementsAre(0, 0, 0));
  ASSERT_TRUE(device->set_state(running));
  EXPECT_THAT(interrupts_[0], ElementsAre(0, 1, 0));  // 0x82 in VTIVAR_MISC raises vector 1
  EXPECT_TRUE(ping(nic, *device, 0, 2));
}

TEST_F(Nic82576, WhatWasPostedToAStoppedFunctionIsSentAtTheStart) {
  auto device = make(0);
  SoftwareBar bar(*device);
  VfDriver nic = VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(device->set_state(stop));
  ASSERT_TRUE(nic.send(echo_request(kGuest, kPeer, 1, 1)));
  EXPECT_TRUE(wire_[0].empty());
  ASSERT_TRUE(device->set_state(running));
  EXPECT_EQ(wire_[0].size(), 1u);
}

TEST_F(Nic82576, ACancelledMoveChangesNothing) {
  auto device = make(0);
  SoftwareBar bar(*device);
  VfDriver nic = VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  const uint32_t vlan[] = {4 | 1u << 16, 5};
  nic.post(vlan);
  ASSERT_TRUE(device->set_state(stop_copy));
  ASSERT_TRUE(device->save_all());  // reads, and so clears, what announces the reply
  ASSERT_TRUE(device->set_state(running));
  EXPECT_TRUE(nic.take_reply().ack);
  EXPECT_TRUE(ping(nic, *device, 0, 1));
}

TEST_F(Nic82576, TheDestinationRaisesTheVectorsOfTheQueues) {
  auto source = make(0), target = make(1);
  SoftwareBar bar(*source);
  VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  poison(*target, 1);
  move(*source, *target);
  EXPECT_THAT(interrupts_[1], ElementsAre(Ge(1), Ge(1), 0)) << "the guest has read all that its mailbox had to say";
}

TEST_F(Nic82576, TheDestinationRaisesTheMailboxsVectorForWhatTheGuestHasNotRead) {
  auto source = make(0), target = make(1);
  SoftwareBar bar(*source);
  VfDriver nic = VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  const uint32_t vlan[] = {4 | 1u << 16, 5};
  nic.post(vlan);
  poison(*target, 1);
  move(*source, *target);
  EXPECT_THAT(interrupts_[1], Each(Ge(1)));
}

TEST_F(Nic82576, InterruptsGoOnAfterTheMove) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  move(*source, *target);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  moved.unmask(7);
  interrupts_[1] = {};
  ASSERT_TRUE(ping(moved, *target, 1, 1));
  EXPECT_THAT(interrupts_[1], ElementsAre(1, 1, 0));
}

// EICS alone would unmask what EIAM names, as it does for igbvf.
TEST_F(Nic82576, InterruptsGoOnWhereNothingIsMaskedAutomatically) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  there.write32(0x1530, 0);
  move(*source, *target);
  interrupts_[1] = {};
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  ASSERT_TRUE(ping(moved, *target, 1, 1));
  EXPECT_THAT(interrupts_[1], ElementsAre(1, 1, 0));
}

// ---- what only the PF knows

TEST_F(Nic82576, FiltersMoveAndThoseOfTheFormerGuestGo) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = {2, 0, 0, 0, 0, 3}, .max_frame = 4000});
  ASSERT_TRUE(nic.set_mac(kGuest.mac));
  for (uint16_t id : {5, 6, 4095}) ASSERT_TRUE(nic.set_vlan(id, true));
  ASSERT_TRUE(nic.set_vlan(6, false));
  const MacAddress group{1, 0, 0x5e, 1, 2, 3}, other{1, 0, 0x5e, 9, 9, 9}, further{2, 0, 0, 0, 1, 0},
      given_up{2, 0, 0, 0, 1, 1};
  ASSERT_TRUE(nic.set_multicast({{group}}));
  auto filter = [&](uint32_t what, const MacAddress& mac) {
    uint32_t message[3] = {2 | what << 16, 0, 0};
    std::memcpy(&message[1], mac.data(), mac.size());
    return nic.request(message).ack;
  };
  ASSERT_TRUE(filter(2, given_up) && filter(1, {}) && filter(2, further) && filter(2, further));
  poison(*target, 1);
  move(*source, *target);

  auto arrives = [&](const std::array<uint8_t, 6>& to, std::optional<uint16_t> vlan = {},
                     size_t payload = 56) {
    const Frame frame = echo_request(kPeer, {to, kGuest.ip}, 1, 1, payload);
    return target->receive(vlan ? with_vlan(frame, *vlan) : frame);
  };
  EXPECT_TRUE(arrives(kGuest.mac));
  EXPECT_TRUE(arrives(kGuest.mac, 5) && arrives(kGuest.mac, 4095));
  EXPECT_FALSE(arrives(kGuest.mac, 6));
  EXPECT_FALSE(arrives(kGuest.mac, 77));
  EXPECT_FALSE(arrives(kFormer.mac) || arrives({2, 0, 0, 0, 0, 3}));
  EXPECT_TRUE(arrives(group));
  EXPECT_FALSE(arrives(other) || arrives({1, 0, 0x5e, 7, 7, 7}));
  EXPECT_TRUE(arrives(further));
  EXPECT_FALSE(arrives(given_up));
  EXPECT_TRUE(arrives(kGuest.mac, {}, 3900));
  EXPECT_FALSE(arrives(kGuest.mac, {}, 4100));

  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_TRUE(moved.set_multicast_promiscuous(true));
  EXPECT_TRUE(arrives(other));
  source->reset();
  move(*target, *source);
  EXPECT_TRUE(source->receive(echo_request(kPeer, {other, kGuest.ip}, 1, 1)));
}

TEST_F(Nic82576, ARefusedRequestIsNotCarried) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  const uint32_t too_large[] = {5, 0x3f01};
  ASSERT_FALSE(nic.request(too_large).ack);
  ASSERT_FALSE(nic.set_mac({3, 0, 0, 0, 0, 1}));
  move(*source, *target);
  EXPECT_TRUE(target->receive(echo_request(kPeer, kGuest, 1, 1)));
}

TEST_F(Nic82576, AResetByTheGuestForgetsItsFilters) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(nic.set_vlan(5, true));
  nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  move(*source, *target);
  EXPECT_TRUE(target->receive(echo_request(kPeer, kGuest, 1, 1)));
  EXPECT_FALSE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

TEST_F(Nic82576, AFunctionThatWasOnlyResetStaysWithoutAPf) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source);
  VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  there.write32(0, 1u << 26);
  poison(*target, 1);
  target->reset();
  move(*source, *target);
  EXPECT_FALSE(models[1]->pf().receives());
}

TEST_F(Nic82576, RemovedVlansTakeNoRoom) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  for (uint16_t id = 1; id < 100; ++id) ASSERT_TRUE(nic.set_vlan(id, true) && nic.set_vlan(id, false));
  ASSERT_TRUE(nic.set_vlan(5, true));
  move(*source, *target);
  EXPECT_TRUE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

TEST_F(Nic82576, FiltersSurviveTheWorker) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(nic.set_vlan(5, true));
  source->kill_worker();
  ASSERT_TRUE(source->start_worker());
  ASSERT_TRUE(nic.set_vlan(6, true));
  move(*source, *target);
  for (uint16_t id : {5, 6}) EXPECT_TRUE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), id)));
}

TEST_F(Nic82576, CountersGoOn) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  for (uint16_t i = 0; i < 4; ++i) ASSERT_TRUE(ping(nic, *source, 0, i));
  poison(*target, 1);  // has counted more
  ASSERT_GT(read(*target, 0xf14), 4u);
  move(*source, *target);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_EQ(moved.good_received(), 4u);
  EXPECT_EQ(moved.good_sent(), 4u);
  ASSERT_TRUE(ping(moved, *target, 1, 1));
  EXPECT_EQ(moved.good_received(), 5u);
  EXPECT_EQ(moved.good_sent(), 5u);
}

// ---- a message on its way

TEST_F(Nic82576, AMessageThePfHasNotAnsweredIsAnsweredAtTheDestination) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  models[0]->pf().policy.answers = false;
  const uint32_t vlan[] = {4 | 1u << 16, 5};
  nic.post(vlan);
  poison(*target, 1);
  move(*source, *target);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  const MailboxReply reply = moved.take_reply();
  EXPECT_TRUE(reply.ack);
  EXPECT_EQ(reply.words[0] & 0xffff, 4u);
  EXPECT_TRUE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
  models[0]->pf().policy.answers = true;
  move(*target, *source);  // and it is known as granted
  EXPECT_TRUE(source->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

TEST_F(Nic82576, AResetOnItsWayIsAnsweredAtTheDestination) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(nic.set_vlan(5, true));
  models[0]->pf().policy.answers = false;
  models[1]->pf().policy.admin_mac = kGuest.mac;
  const uint32_t hello[] = {1};
  nic.post(hello);
  move(*source, *target);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  const MailboxReply reply = moved.take_reply();
  EXPECT_TRUE(reply.ack);
  EXPECT_EQ(std::memcmp(&reply.words[1], kGuest.mac.data(), 6), 0);
  EXPECT_FALSE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

TEST_F(Nic82576, AReplyTheGuestHasNotReadIsThereAtTheDestination) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  const uint32_t vlan[] = {4 | 1u << 16, 5};
  nic.post(vlan);
  poison(*target, 1);
  move(*source, *target);  // the PF answers while the state is saved
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_TRUE(moved.take_reply().ack);
  EXPECT_EQ(here.read32(0xc40) & 0xb0, 0u);  // shown once
  EXPECT_TRUE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

// A driver need not look at the mailbox's status before it writes the next message.
TEST_F(Nic82576, AReplyIsSeenBeforeItIsOverwritten) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  const uint32_t vlan[] = {4 | 1u << 16, 5};
  nic.post(vlan);
  for (int i = 0; i < 10; ++i) there.read32(8);
  there.write32(0x800, 5);
  move(*source, *target);
  EXPECT_TRUE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

TEST_F(Nic82576, TheGuestKeepsTheMailboxItHolds) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  there.write32(0xc40, 4);
  there.write32(0x800, 4 | 1u << 16);
  poison(*target, 1);
  move(*source, *target);
  EXPECT_EQ(here.read32(0xc40) & 4, 4u);
  here.write32(0x804, 5);
  here.write32(0xc40, 1);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  EXPECT_TRUE(moved.take_reply().ack);
  EXPECT_TRUE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

TEST_F(Nic82576, AMessageOfThePfsOwnIsNoReply) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(nic.set_vlan(5, true));
  models[0]->pf_notify();
  models[1]->pf_notify();
  move(*source, *target);
  EXPECT_TRUE(target->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

// ---- contexts in the TX unit

class Contexts : public Nic82576 {
 protected:
  /// The tag that a frame gets whose sender relies on an earlier context.
  std::optional<uint16_t> tag_after_move(SoftwareDevice::Grant grant, uint32_t queue) {
    auto source = make(0, grant), target = make(1, grant);
    SoftwareBar there(*source), here(*target);
    VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac, .queue = queue});
    nic.send(echo_request(kGuest, kPeer, 1, 1), {.vlan = 4});
    nic.send(echo_request(kGuest, kPeer, 1, 2), {.vlan = 5});
    nic.send(echo_request(kGuest, kPeer, 1, 3));
    poison(*target, 1);
    move(*source, *target);
    VfDriver moved = VfDriver::adopt(here, guest_memory());
    EXPECT_TRUE(wire_[1].empty());
    moved.send(echo_request(kGuest, kPeer, 1, 4), {.vlan = 5, .new_context = false});
    return wire_[1].empty() ? std::nullopt : vlan_of(wire_[1].back());
  }
};

TEST_F(Contexts, AreSetAgainFromTheGuestsRing) {
  EXPECT_EQ(tag_after_move(SoftwareDevice::Grant::read, 0), 5);
}
TEST_F(Contexts, AreSetAgainInTheSecondQueue) {
  EXPECT_EQ(tag_after_move(SoftwareDevice::Grant::read, 1), 5);
}
TEST_F(Contexts, AreLostWithoutGuestMemory) {
  EXPECT_NE(tag_after_move(SoftwareDevice::Grant::none, 0), 5);
}

TEST_F(Contexts, OfBothSlotsAreSetAgain) {
  auto source = make(0), target = make(1);
  SoftwareBar there(*source), here(*target);
  VfDriver nic = VfDriver::init(there, guest_memory(), {.mac = kGuest.mac});
  auto use_slot_1 = [&](uint32_t descriptor, uint32_t word) {
    const size_t at = kGuestIova + 8192 + 16 * descriptor + 4 * word;
    memory_[at] |= std::byte{0x10};
  };
  nic.send(echo_request(kGuest, kPeer, 1, 1), {.vlan = 4});
  nic.send(echo_request(kGuest, kPeer, 1, 2), {.vlan = 5, .doorbell = false});
  use_slot_1(2, 3), use_slot_1(3, 3);
  nic.doorbell();
  ASSERT_EQ(vlan_of(wire_[0].back()), 5);
  poison(*target, 1);
  move(*source, *target);
  VfDriver moved = VfDriver::adopt(here, guest_memory());
  moved.send(echo_request(kGuest, kPeer, 1, 3), {.vlan = 0, .new_context = false});
  EXPECT_EQ(vlan_of(wire_[1].back()), 4);
  moved.send(echo_request(kGuest, kPeer, 1, 4), {.vlan = 0, .new_context = false, .doorbell = false});
  use_slot_1(5, 3);
  moved.doorbell();
  EXPECT_EQ(vlan_of(wire_[1].back()), 5);
}

// ---- the PF at the destination

class OtherPf : public Nic82576 {
 protected:
  void SetUp() override {
    Nic82576::SetUp();
    source_ = make(0);
    target_ = make(1, SoftwareDevice::Grant::read, &administrator_);
    SoftwareBar bar(*source_);
    VfDriver nic = VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
    ASSERT_TRUE(nic.set_vlan(5, true));
  }
  nic82576::PfPolicy& policy() { return models[1]->pf().policy; }
  bool arrives() { return target_->receive(echo_request(kPeer, kGuest, 1, 1)); }

  Administrator administrator_;
  std::unique_ptr<SoftwareDevice> source_, target_;
};

TEST_F(OtherPf, MayHaveSetTheSameAddressItself) {
  policy().admin_mac = kGuest.mac;
  move(*source_, *target_);
  EXPECT_EQ(administrator_.asked, 0);
  EXPECT_TRUE(arrives());
}

TEST_F(OtherPf, GivesTheAddressThroughTheSupervisor) {
  policy().admin_mac = kFormer.mac;
  move(*source_, *target_);
  EXPECT_TRUE(arrives());
  EXPECT_TRUE(target_->receive(with_vlan(echo_request(kPeer, kGuest, 1, 1), 5)));
}

TEST_F(OtherPf, TakesTheAddressFromATrustedFunction) {
  policy().admin_mac = kFormer.mac;
  policy().trusted = true;
  administrator_.allowed = false;
  move(*source_, *target_);
  EXPECT_TRUE(arrives());
}

TEST_F(OtherPf, RefusesTheAddressAndTheAdministratorIsToldWhatToDo) {
  policy().admin_mac = kFormer.mac;
  administrator_.allowed = false;
  const Result<void> moved = try_move(*source_, *target_);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, EPERM);
  EXPECT_THAT(moved.error().text,
              AllOf(HasSubstr("ip link set PF vf N mac 02:00:00:00:00:01"), HasSubstr("trust on")));
  EXPECT_FALSE(arrives());
}

TEST_F(OtherPf, RefusesAVlanAndTheAdministratorIsToldWhatToDo) {
  policy().port_vlan = 9;
  const Result<void> moved = try_move(*source_, *target_);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, EPERM);
  EXPECT_THAT(moved.error().text, AllOf(HasSubstr("0x10004 0x5"), HasSubstr("ip link set PF vf N vlan 0")));
}

// Granted here means needed there: the guest is not left with a refusal of what it was about to get.
TEST_F(OtherPf, RefusesAVlanWhoseReplyTheSourceWaitedFor) {
  SoftwareBar bar(*source_);
  VfDriver nic = VfDriver::adopt(bar, guest_memory());
  ASSERT_TRUE(nic.set_vlan(5, false));
  const uint32_t vlan[] = {4 | 1u << 16, 6};
  nic.post(vlan);
  policy().port_vlan = 9;
  const Result<void> moved = try_move(*source_, *target_);
  ASSERT_FALSE(moved);
  EXPECT_THAT(moved.error().text, HasSubstr("0x10004 0x6"));
}

TEST_F(OtherPf, IsInReset) {
  policy().in_reset = true;
  const Result<void> moved = try_move(*source_, *target_);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, EAGAIN);
  EXPECT_THAT(moved.error().text, HasSubstr("in reset"));
}

TEST_F(OtherPf, DoesNotAnswer) {
  policy().answers = false;
  const Result<void> moved = try_move(*source_, *target_);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ETIMEDOUT);
  EXPECT_THAT(moved.error().text, HasSubstr("ip link set PF up"));
}

TEST_F(OtherPf, RemembersAnotherInterruptLayout) {
  ASSERT_TRUE(target_->write32(0, 0x1700, 0x8280));
  move(*source_, *target_);
  EXPECT_THAT(log_, HasSubstr("interrupt layout"));
}

TEST_F(OtherPf, RemembersTheSameInterruptLayout) {
  ASSERT_TRUE(target_->write32(0, 0x1700, 0x8081));
  move(*source_, *target_);
  EXPECT_EQ(log_, "");
}

// ---- reset, and devices that cannot work

TEST_F(Nic82576, AResetLeavesNothingOfTheFormerGuest) {
  auto device = make(0);
  poison(*device, 0);
  const uint32_t layout = read(*device, 0x1700);
  device->reset();
  for (uint32_t base : {0x2800u, 0x2900u, 0x3800u, 0x3900u})
    for (uint32_t at = 0; at < 0x40; at += 4)
      EXPECT_EQ(read(*device, base + at), 0u) << std::hex << base + at;
  for (uint32_t at = 0x800; at < 0x840; at += 4) EXPECT_EQ(read(*device, at), 0u);
  for (uint32_t at : {0x152cu, 0x1530u, 0x1680u, 0x1684u, 0x1688u, 0x1740u}) EXPECT_EQ(read(*device, at), 0u);
  EXPECT_EQ(read(*device, 0x1700), layout);  // cannot be taken back, so it is not hidden either
  SoftwareBar bar(*device);
  VfDriver nic = VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  EXPECT_TRUE(ping(nic, *device, 0, 1));
}

TEST_F(Nic82576, AFunctionWhoseBarIsMisplacedIsRefusedWithTheReason) {
  misplaced_bar = true;
  const auto device = try_make(0);
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code, ENODEV);
  EXPECT_THAT(device.error().text, AllOf(HasSubstr("read as zero"), HasSubstr("2 GiB")));
}

TEST_F(Nic82576, OnlyWordsReachPageZero) {
  auto device = make(0);
  std::array<std::byte, 2> half{};
  const Result<void> ok = device->read(0, 0xc40, half);
  ASSERT_FALSE(ok);
  EXPECT_THAT(ok.error().text, HasSubstr("32-bit"));
}

// ---- hostile streams

struct Hostile {
  const char* name;
  const char* field;
  size_t word;  // of the field
  uint32_t value;
  const char* reason;
};
void PrintTo(const Hostile& h, std::ostream* os) {
  *os << h.name;
}

class HostileStream : public Nic82576, public ::testing::WithParamInterface<Hostile> {};

/// The same fields with one word changed.
Bytes with_word(const Bytes& fields, std::string_view name, size_t word, uint32_t value) {
  Bytes changed = fields;
  for (size_t at = 0; at < changed.size();) {
    const size_t length = std::to_integer<size_t>(changed[at]) & 0x7f;
    const std::string_view here(reinterpret_cast<const char*>(&changed[at + 1]), length);
    uint32_t size;
    std::memcpy(&size, &changed[at + 1 + length], 4);
    const size_t value_at = at + 5 + length;
    if (here == name) {
      EXPECT_LE(4 * word + 4, size);
      std::memcpy(&changed[value_at + 4 * word], &value, 4);
      return changed;
    }
    at = value_at + size;
  }
  ADD_FAILURE() << "no field " << name;
  return changed;
}

TEST_P(HostileStream, IsRefused) {
  auto source = make(0), target = make(1);
  SoftwareBar bar(*source);
  VfDriver nic = VfDriver::init(bar, guest_memory(), {.mac = kGuest.mac});
  ASSERT_TRUE(nic.set_vlan(5, true));
  ASSERT_TRUE(source->set_state(stop));
  Bytes buffer(65536);
  FieldWriter out(buffer);
  source->worker()->begin_save();
  ASSERT_TRUE(source->worker()->save(0, out));
  const Bytes good(out.bytes().begin(), out.bytes().end());

  ASSERT_TRUE(target->worker()->begin_load("2", {"2"}));
  FieldReader unchanged("nic-82576", good, 1000);
  const Result<void> ok = target->worker()->load(0, unchanged);
  ASSERT_TRUE(ok) << ok.error().text;

  const Hostile& h = GetParam();
  const Bytes bad = with_word(good, h.field, h.word, h.value);
  FieldReader in("nic-82576", bad, 1000);
  const Result<void> loaded = target->worker()->load(0, in);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, EINVAL);
  EXPECT_THAT(loaded.error().text,
              AllOf(HasSubstr("section \"nic-82576\""),
                    HasSubstr(std::string("field \"") + h.field + "\" at offset "), HasSubstr(h.reason)));
}

constexpr size_t kState = 32, kContexts = kState + 4 + 9, kGrants = kContexts + 4, kFirstGrant = kGrants + 1;

INSTANTIATE_TEST_SUITE_P(
    Nic82576, HostileStream,
    ::testing::Values(Hostile{"HeadBehindTheRing", "rx0.head", 0, 64, "expected 0 to 63"},
                      Hostile{"TailBehindTheRing", "rx0.tail", 0, 0xffff, "expected 0 to 63"},
                      Hostile{"TxHeadBehindTheRing", "tx0.head", 0, 64, "expected 0 to 63"},
                      Hostile{"TxTailBehindTheRing", "tx0.tail", 0, 1000, "expected 0 to 63"},
                      Hostile{"HeadOfAQueueThatIsOff", "rx1.head", 0, 0x10000, "outside 0xffff"},
                      Hostile{"RingNotAligned", "rx0.base_low", 0, 0x1040, "outside 0xffffff80"},
                      Hostile{"TxRingNotAligned", "tx1.base_low", 0, 0x1001, "outside 0xffffff80"},
                      Hostile{"LengthNotAMultiple", "rx0.length", 0, 1000, "outside 0xfff80"},
                      Hostile{"LengthTooLarge", "tx0.length", 0, 0x100000, "outside 0xfff80"},
                      Hostile{"ControlBits", "rx0.control", 0, 0x80000000, "outside 0xb1f1f1f"},
                      Hostile{"TxControlBits", "tx0.control", 0, 0x00200000, "outside 0xb1f1f1f"},
                      Hostile{"BufferBits", "rx0.srrctl", 0, 0x00000080, "outside 0x8ff03f7f"},
                      Hostile{"DcaBits", "tx0.txctl", 0, 0x20, "outside 0xaa00"},
                      Hostile{"RxDcaBits", "rx1.rxctl", 0, 0x40, "outside 0xaa00"},
                      Hostile{"ThrottleBits", "eitr1", 0, 0x80000000, "outside 0xfffe"},
                      Hostile{"VectorBits", "vtivar", 0, 0x84, "outside 0x83838383"},
                      Hostile{"VectorOfAnotherFunction", "vtivar", 0, 0x8300, "names vector 3"},
                      Hostile{"OtherVectorOfAnotherFunction", "vtivar_misc", 0, 0x83, "names vector 3"},
                      Hostile{"AutoClearBits", "eiac", 0, 8, "outside 0x7"},
                      Hostile{"InFlight", "hidden", kState, 2, "no mailbox is in this state"},
                      Hostile{"Holds", "hidden", kState + 1, 1, "no mailbox is in this state"},
                      Hostile{"Owed", "hidden", kState + 2, 0x100, "no mailbox is in this state"},
                      Hostile{"ContextOutsideOfItsRing", "hidden", kContexts, 64, "not in its ring"},
                      Hostile{"ContextOfAQueueThatIsOff", "hidden", kContexts + 2, 0, "not in its ring"},
                      Hostile{"TooManyFilters", "hidden", kGrants, 53, "more filters"},
                      Hostile{"MulticastAddress", "hidden", kFirstGrant + 1, 1, "no PF grants"},
                      Hostile{"UnknownMessage", "hidden", kFirstGrant, 7, "no PF grants message 0x7"},
                      Hostile{"ResetAmongTheSettings", "hidden", kFirstGrant, 1, "no PF grants message 0x1"},
                      Hostile{"ReplyAmongTheSettings", "hidden", kFirstGrant, 0x80000002, "no PF grants"},
                      Hostile{"TooManyGroups", "hidden", kFirstGrant, 31u << 16 | 3, "no PF grants"},
                      Hostile{"VlanTooLarge", "hidden", kFirstGrant + 2 * 16 + 1, 4096, "no PF grants"}),
    [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace hookline
