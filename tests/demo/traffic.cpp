// SPDX-License-Identifier: Apache-2.0
#include "tests/demo/traffic.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

namespace hookline::demo {
namespace {

constexpr testing::Host kSelf{{0x02, 0x48, 0x4b, 0x00, 0x00, 0x01}, 0x0a000232};  // 10.0.2.50
constexpr uint32_t kGateway = 0x0a000202;                                         // 10.0.2.2
constexpr uint16_t kEchoId = 0x484b;
constexpr auto kAllVectors = 0x7u;

// A frame that says it is an ICMP echo reply to us; whether it is a good one is asked of parse_echo_reply.
bool looks_like_echo_reply(std::span<const std::byte> frame) {
  return frame.size() > 34 && frame[12] == std::byte{0x08} && frame[13] == std::byte{0} && frame[23] == std::byte{1} &&
         frame[34] == std::byte{0};
}

}  // namespace

void Traffic::begin(Side& side, testing::DmaMemory memory) {
  side_ = &side;
  self_ = kSelf;
  nic_ = std::make_unique<testing::VfDriver>(testing::VfDriver::init(side, memory, {.mac = kSelf.mac}));
  // The PF's link may need a moment after the function came up.
  for (int attempt = 0; attempt < 50 && !gateway_known_; ++attempt) {
    transmit(testing::arp_request(self_, kGateway));
    take_until(Clock::now() + std::chrono::milliseconds(200));
  }
  if (!gateway_known_)
    throw std::runtime_error(fmt::format("{}: no answer to ARP requests for the gateway 10.0.2.2", side.name()));
}

void Traffic::continue_on(Side& side, testing::DmaMemory memory) {
  side_ = &side;
  nic_ = std::make_unique<testing::VfDriver>(testing::VfDriver::adopt(side, memory));
  if (unhandled_ != 0) take(std::exchange(unhandled_, 0));
}

void Traffic::send(uint64_t packets, Period period) {
  auto next = Clock::now();
  for (uint64_t i = 0; i < packets; ++i) {
    send_one(period);
    next += spacing_;
    // After a stall go on at the pace, without making up for it.
    next = std::max(next, Clock::now());
    take_until(next);
    progress_();
  }
}

void Traffic::burst(uint64_t packets, Period period) {
  for (uint64_t i = 0; i < packets; ++i) send_one(period);
}

void Traffic::idle(std::chrono::milliseconds time) {
  const auto end = Clock::now() + time;
  for (auto now = Clock::now(); now < end; now = Clock::now())
    unhandled_ |= side_->wait(std::chrono::duration_cast<std::chrono::microseconds>(end - now));
}

void Traffic::settle(std::chrono::milliseconds limit) {
  last_answer_ = Clock::now();
  const auto outstanding = [this] {
    return std::any_of(packets_.begin(), packets_.end(),
                       [](const Packet& packet) { return !packet.answered && !packet.on_its_way_at_stop; });
  };
  while (outstanding() && Clock::now() < last_answer_ + limit) {
    take_until(Clock::now() + std::chrono::milliseconds(20));
    progress_();
  }
}

void Traffic::stopped() {
  // Two seconds is no round trip even under emulation: what is older was lost before.
  const auto too_old = Clock::now() - std::chrono::seconds(2);
  for (Packet& packet : packets_)
    if (!packet.answered && packet.sent > too_old) packet.on_its_way_at_stop = true;
}

Counts Traffic::counts(Period period) const {
  Counts counts;
  for (const Packet& packet : packets_) {
    if (packet.period != period) continue;
    ++counts.sent;
    if (packet.answered) {
      ++counts.answered;
    } else if (packet.on_its_way_at_stop) {
      ++counts.lost_in_stop;
    } else {
      ++counts.lost_outside_stop;
    }
  }
  return counts;
}

void Traffic::send_one(Period period) {
  if (packets_.size() > UINT16_MAX) throw std::runtime_error("more packets than sequence numbers");
  const auto sequence = static_cast<uint16_t>(packets_.size());
  packets_.push_back({period, Clock::now()});
  transmit(testing::echo_request(self_, gateway_, kEchoId, sequence));
}

void Traffic::transmit(std::span<const std::byte> frame) {
  nic_->reap();
  const auto limit = Clock::now() + std::chrono::seconds(2);
  while (!nic_->send(frame)) {
    if (Clock::now() > limit) throw std::runtime_error(side_->name() + ": the TX ring has been full for 2 s");
    side_->pause();
    nic_->reap();
  }
}

void Traffic::take_until(Clock::time_point end) {
  for (auto now = Clock::now(); now < end; now = Clock::now()) {
    const uint32_t vectors = side_->wait(std::chrono::duration_cast<std::chrono::microseconds>(end - now));
    if (vectors != 0) take(vectors);
  }
}

void Traffic::take(uint32_t vectors) {
  const auto drain = [this] {
    while (auto frame = nic_->receive()) handle(*frame);
  };
  drain();
  nic_->unmask(vectors & kAllVectors);
  // What came between the last look and the unmasking.
  drain();
}

void Traffic::handle(const testing::ReceivedFrame& received) {
  if (auto host = testing::parse_arp_reply(received.bytes); host && host->ip == kGateway) {
    gateway_ = *host;
    gateway_known_ = true;
    return;
  }
  if (auto echo = testing::parse_echo_reply(received.bytes)) {
    if (echo->id != kEchoId || echo->sequence >= packets_.size()) return;
    Packet& packet = packets_[echo->sequence];
    if (packet.answered) {
      ++duplicates_;
    } else {
      packet.answered = true;
      ++answered_;
      last_answer_ = Clock::now();
    }
    return;
  }
  if (looks_like_echo_reply(received.bytes)) ++damaged_;
  if (auto reply = testing::answer(self_, received.bytes)) transmit(*reply);
}

}  // namespace hookline::demo
