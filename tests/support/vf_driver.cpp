// SPDX-License-Identifier: Apache-2.0
#include "tests/support/vf_driver.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

namespace hookline::testing {
namespace {

constexpr uint32_t kCtrl = 0x0, kCtrlReset = 1u << 26;
constexpr uint32_t kMailboxMemory = 0x800;
constexpr uint32_t kMailbox = 0xc40, kReq = 0x1, kAck = 0x2, kVfu = 0x4, kPfSts = 0x10, kPfAck = 0x20,
                   kRsti = 0x40;
constexpr uint32_t kReceivedCounter = 0xf10, kSentCounter = 0xf14;
constexpr uint32_t kEims = 0x1524, kEimc = 0x1528, kEiac = 0x152c, kEiam = 0x1530, kEicr = 0x1580;
constexpr uint32_t kEitr = 0x1680, kIvar = 0x1700, kIvarMisc = 0x1740;
constexpr uint32_t kQueueEnable = 1u << 25;

constexpr uint32_t kMsgReset = 1, kMsgMac = 2, kMsgMulticast = 3, kMsgVlan = 4, kMsgLpe = 5, kMsgPromisc = 6;
constexpr uint32_t kReplyAck = 1u << 31, kReplyNack = 1u << 30;

constexpr size_t kStateAt = 0, kRxRingAt = 4096, kTxRingAt = 8192, kRxBuffersAt = 3 * 4096;
constexpr size_t kTxBuffersAt = kRxBuffersAt + size_t{VfDriver::kDescriptors} * VfDriver::kBufferBytes;
constexpr uint32_t kMagic = 0x56465244;

constexpr uint32_t rx(uint32_t queue, uint32_t reg) {
  return 0x2800 + 0x100 * queue + reg;
}
constexpr uint32_t tx(uint32_t queue, uint32_t reg) {
  return 0x3800 + 0x100 * queue + reg;
}
constexpr uint32_t kLow = 0x00, kHigh = 0x04, kLength = 0x08, kSrrctl = 0x0c, kHead = 0x10, kTail = 0x18,
                   kControl = 0x28;

struct Descriptor {
  uint32_t word[4];
};
constexpr uint32_t kRxDone = 1u << 0, kRxEop = 1u << 1, kRxVlan = 1u << 3;
constexpr uint32_t kTxContext = 0x2u << 20, kTxData = 0x3u << 20, kTxExtended = 1u << 29;
constexpr uint32_t kTxEop = 1u << 24, kTxFcs = 1u << 25, kTxReport = 1u << 27, kTxVlan = 1u << 30;

}  // namespace

// What a guest driver keeps in guest memory.
struct VfDriver::State {
  uint32_t magic, queue;
  uint32_t rx_next;            // the next descriptor to look at
  uint32_t tx_next, tx_clean;  // the next to write; the oldest not yet seen completed
  uint32_t status;             // read-to-clear mailbox bits not yet used
  MacAddress mac;
};

void BarPort::pause() {
  std::this_thread::sleep_for(std::chrono::microseconds(500));
}

VfDriver::State& VfDriver::state() const {
  return *reinterpret_cast<State*>(at(kStateAt));
}

VfDriver VfDriver::adopt(BarPort& bar, DmaMemory memory) {
  VfDriver nic(bar, memory);
  if (memory.bytes.size() < kMemoryBytes || nic.state().magic != kMagic)
    throw std::runtime_error("no driver ever ran in this memory");
  return nic;
}

VfDriver VfDriver::init(BarPort& bar, DmaMemory memory, const VfOptions& options) {
  if (memory.bytes.size() < kMemoryBytes) throw std::runtime_error("the driver needs more DMA memory");
  VfDriver nic(bar, memory);
  std::fill(memory.bytes.begin(), memory.bytes.begin() + kMemoryBytes, std::byte{0});
  nic.state() = State{};
  nic.state().magic = kMagic;
  nic.state().queue = options.queue;
  const uint32_t q = options.queue;

  bar.write32(kEimc, ~0u);
  bar.write32(kCtrl, kCtrlReset);
  for (int tries = 0; nic.status() & kRsti; ++tries) {
    if (tries == 200) throw std::runtime_error("the PF is still in reset");
    bar.pause();
  }
  const uint32_t hello[] = {kMsgReset};
  const MailboxReply welcome = nic.request(hello);
  if (welcome.ack) std::memcpy(nic.state().mac.data(), &welcome.words[1], 6);
  if (options.mac != MacAddress{} && options.mac != nic.mac() && !nic.set_mac(options.mac))
    throw std::runtime_error("the PF refuses the MAC address");
  if (!nic.set_max_frame(options.max_frame)) throw std::runtime_error("the PF refuses the frame size");

  bar.write32(tx(q, kControl), 0);
  bar.write32(tx(q, kLength), kDescriptors * sizeof(Descriptor));
  bar.write32(tx(q, kLow), static_cast<uint32_t>(memory.iova + kTxRingAt));
  bar.write32(tx(q, kHigh), static_cast<uint32_t>((memory.iova + kTxRingAt) >> 32));
  bar.write32(tx(q, kHead), 0);
  bar.write32(tx(q, kTail), 0);
  bar.write32(tx(q, kControl), kQueueEnable);

  bar.write32(rx(q, kControl), 0);
  bar.write32(rx(q, kLow), static_cast<uint32_t>(memory.iova + kRxRingAt));
  bar.write32(rx(q, kHigh), static_cast<uint32_t>((memory.iova + kRxRingAt) >> 32));
  bar.write32(rx(q, kLength), kDescriptors * sizeof(Descriptor));
  bar.write32(rx(q, kSrrctl), 0x82000000u | kBufferBytes >> 10);  // one buffer, drop when none is left
  bar.write32(rx(q, kHead), 0);
  bar.write32(rx(q, kTail), 0);
  bar.write32(rx(q, kControl), kQueueEnable | 1u << 16 | 8u << 8 | 16u);
  for (uint32_t i = 0; i < kDescriptors; ++i) nic.give_rx_buffer(i);
  bar.write32(rx(q, kTail), kDescriptors - 1);

  for (uint32_t vector : {kTxVector, kRxVector}) bar.write32(kEitr + 4 * vector, 488);
  const uint32_t entries = (0x80 | kRxVector) | (0x80 | kTxVector) << 8;
  bar.write32(kIvar, q == 0 ? entries : entries << 16);
  bar.write32(kIvarMisc, 0x80 | kOtherVector);
  bar.read32(kEicr);
  bar.write32(kEiac, 7);
  bar.write32(kEiam, 7);
  bar.write32(kEims, 7);
  return nic;
}

MacAddress VfDriver::mac() const {
  return state().mac;
}

void VfDriver::give_rx_buffer(uint32_t index) {
  const uint64_t buffer = memory_.iova + kRxBuffersAt + size_t{index} * kBufferBytes;
  const Descriptor fresh{{static_cast<uint32_t>(buffer), static_cast<uint32_t>(buffer >> 32), 0, 0}};
  std::memcpy(at(kRxRingAt + index * sizeof fresh), &fresh, sizeof fresh);
}

bool VfDriver::send(std::span<const std::byte> frame, const SendOptions& options) {
  State& s = state();
  reap();
  const bool context = options.vlan && options.new_context;
  const uint32_t used = (s.tx_next + kDescriptors - s.tx_clean) % kDescriptors;
  if (kDescriptors - 1 - used < (context ? 2u : 1u)) return false;
  if (frame.size() > kBufferBytes) throw std::runtime_error("the frame does not fit a buffer");

  auto put = [&](const Descriptor& d) {
    std::memcpy(at(kTxRingAt + s.tx_next * sizeof d), &d, sizeof d);
    s.tx_next = (s.tx_next + 1) % kDescriptors;
  };
  if (context) put({{uint32_t{*options.vlan} << 16 | 14u << 9, 0, kTxContext | kTxExtended, 0}});
  const size_t buffer_at = kTxBuffersAt + size_t{s.tx_next} * kBufferBytes;
  std::copy(frame.begin(), frame.end(), memory_.bytes.begin() + static_cast<ptrdiff_t>(buffer_at));
  const uint64_t buffer = memory_.iova + buffer_at;
  const auto size = static_cast<uint32_t>(frame.size());
  put({{static_cast<uint32_t>(buffer), static_cast<uint32_t>(buffer >> 32),
        size | kTxData | kTxExtended | kTxEop | kTxFcs | kTxReport | (options.vlan ? kTxVlan : 0),
        size << 14}});
  if (options.doorbell) doorbell();
  return true;
}

void VfDriver::doorbell() {
  std::atomic_thread_fence(std::memory_order_release);
  bar_->write32(tx(state().queue, kTail), state().tx_next);
}

uint32_t VfDriver::reap() {
  State& s = state();
  uint32_t count = 0;
  // Only data descriptors report; a context in front of one is done with it.
  for (uint32_t i = s.tx_clean; i != s.tx_next; i = (i + 1) % kDescriptors) {
    Descriptor d;
    std::memcpy(&d, at(kTxRingAt + i * sizeof d), sizeof d);
    if ((d.word[2] & kTxData) == kTxContext) continue;
    if (!(d.word[3] & 1)) break;
    const uint32_t next = (i + 1) % kDescriptors;
    count += (next + kDescriptors - s.tx_clean) % kDescriptors;
    s.tx_clean = next;
  }
  return count;
}

std::optional<ReceivedFrame> VfDriver::receive() {
  State& s = state();
  Descriptor d;
  std::memcpy(&d, at(kRxRingAt + s.rx_next * sizeof d), sizeof d);
  if (!(d.word[2] & kRxDone)) return std::nullopt;
  std::atomic_thread_fence(std::memory_order_acquire);
  if (!(d.word[2] & kRxEop)) throw std::runtime_error("a frame spans buffers");
  const uint32_t length = d.word[3] & 0xffff;
  const std::byte* from = at(kRxBuffersAt + size_t{s.rx_next} * kBufferBytes);
  ReceivedFrame frame{{from, from + std::min(length, kBufferBytes)}, std::nullopt};
  if (d.word[2] & kRxVlan) frame.vlan = static_cast<uint16_t>(d.word[3] >> 16 & 0xfff);
  give_rx_buffer(s.rx_next);
  std::atomic_thread_fence(std::memory_order_release);
  bar_->write32(rx(s.queue, kTail), s.rx_next);
  s.rx_next = (s.rx_next + 1) % kDescriptors;
  return frame;
}

void VfDriver::unmask(uint32_t vectors) {
  bar_->write32(kEims, vectors);
}

uint32_t VfDriver::status() {
  state().status |= bar_->read32(kMailbox);
  return state().status;
}

void VfDriver::post(std::span<const uint32_t> message) {
  for (int tries = 0;; ++tries) {
    bar_->write32(kMailbox, kVfu);
    if (status() & kVfu) break;
    if (tries == 2000) throw std::runtime_error("the PF holds the mailbox");
    bar_->pause();
  }
  state().status = 0;
  for (size_t i = 0; i < message.size(); ++i)
    bar_->write32(kMailboxMemory + 4 * static_cast<uint32_t>(i), message[i]);
  bar_->write32(kMailbox, kReq);
}

MailboxReply VfDriver::take_reply() {
  for (int tries = 0; tries < 4000; ++tries) {
    if (status() & kPfSts) {
      state().status &= ~(kPfSts | kPfAck);
      MailboxReply reply;
      for (uint32_t i = 0; i < reply.words.size(); ++i) reply.words[i] = bar_->read32(kMailboxMemory + 4 * i);
      bar_->write32(kMailbox, kAck);
      if (reply.words[0] & (kReplyAck | kReplyNack)) {
        reply.ack = reply.words[0] & kReplyAck;
        return reply;
      }
    }
    bar_->pause();
  }
  throw std::runtime_error("the PF does not answer the mailbox");
}

MailboxReply VfDriver::request(std::span<const uint32_t> message) {
  post(message);
  return take_reply();
}

bool VfDriver::set_mac(const MacAddress& mac) {
  uint32_t message[3] = {kMsgMac, 0, 0};
  std::memcpy(&message[1], mac.data(), mac.size());
  if (!request(message).ack) return false;
  state().mac = mac;
  return true;
}

bool VfDriver::set_vlan(uint16_t id, bool on) {
  const uint32_t message[] = {kMsgVlan | (on ? 1u << 16 : 0), id};
  return request(message).ack;
}

bool VfDriver::set_multicast(std::span<const MacAddress> groups) {
  uint32_t message[16] = {};
  const size_t count = std::min<size_t>(groups.size(), 30);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t hash = (uint32_t{groups[i][4]} >> 4 | uint32_t{groups[i][5]} << 4) & 0xfff;
    message[1 + i / 2] |= hash << 16 * (i % 2);
  }
  message[0] = kMsgMulticast | static_cast<uint32_t>(count) << 16;
  return request(message).ack;
}

bool VfDriver::set_max_frame(uint32_t bytes) {
  const uint32_t message[] = {kMsgLpe, bytes};
  return request(message).ack;
}

bool VfDriver::set_multicast_promiscuous(bool on) {
  const uint32_t message[] = {kMsgPromisc | (on ? 2u << 16 : 0)};
  return request(message).ack;
}

RingPositions VfDriver::positions() {
  const State& s = state();
  return {.rx_head = bar_->read32(rx(s.queue, kHead)),
          .rx_tail = bar_->read32(rx(s.queue, kTail)),
          .rx_next = s.rx_next,
          .tx_head = bar_->read32(tx(s.queue, kHead)),
          .tx_tail = bar_->read32(tx(s.queue, kTail)),
          .tx_next = s.tx_next,
          .tx_clean = s.tx_clean};
}

uint32_t VfDriver::good_received() {
  return bar_->read32(kReceivedCounter);
}
uint32_t VfDriver::good_sent() {
  return bar_->read32(kSentCounter);
}

}  // namespace hookline::testing
