// SPDX-License-Identifier: Apache-2.0
#include "vf_82576.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace nic82576 {
namespace {

constexpr uint32_t kCtrl = 0x0, kCtrlReset = 1u << 26, kStatus = 0x8;
constexpr uint32_t kStatusUp = 0x80083;  // IO virtualisation mode, 1000 Mb/s, link up, full duplex
constexpr uint32_t kMemory = 0x800, kMemoryEnd = 0x840, kMailbox = 0xc40;
constexpr uint32_t kReq = 0x1, kVfu = 0x4, kPfu = 0x8, kPfSts = 0x10, kPfAck = 0x20, kRsti = 0x40,
                   kRstd = 0x80;
constexpr uint32_t kEics = 0x1520, kEims = 0x1524, kEimc = 0x1528, kEiac = 0x152c, kEiam = 0x1530,
                   kEicr = 0x1580;
constexpr uint32_t kEitr = 0x1680, kVtivar = 0x1700, kVtivarMisc = 0x1740;
constexpr uint32_t kAllVectors = (1u << kVectors) - 1;

constexpr uint32_t kData = 0x3u << 20, kContext = 0x2u << 20, kExtended = 1u << 29, kEop = 1u << 24,
                   kReport = 1u << 27, kInsertVlan = 1u << 30;
constexpr uint32_t kDone = 1, kRxEop = 2, kRxVlan = 8;
constexpr size_t kSmallestFrame = 60, kLargestFrame = 0x3f00;

template <typename T>
std::span<std::byte> bytes_of(T& object) {
  return std::as_writable_bytes(std::span(&object, 1));
}

}  // namespace

uint32_t* Vf::queue_register(uint32_t offset, bool& writable, uint32_t& mask) {
  const bool receive = offset >= 0x2800 && offset < 0x2800 + 0x100 * kQueues;
  if (!receive && !(offset >= 0x3800 && offset < 0x3800 + 0x100 * kQueues)) return nullptr;
  Queue& q = (receive ? rx_ : tx_)[(offset >> 8) & 1];
  mask = ~0u;
  writable = true;
  switch (offset & 0xff) {
    case 0x00:
      mask = ~0x7fu;
      return &q.low;
    case 0x04:
      return &q.high;
    case 0x08:
      mask = 0xfff80;
      return &q.length;
    case 0x0c:
      return receive ? &q.srrctl : nullptr;
    case 0x10:
      mask = 0xffff, writable = !q.enabled();
      return &q.head;
    case 0x14:
      return receive ? &q.rxctl : &q.txctl;
    case 0x18:
      mask = 0xffff;
      return &q.tail;
    case 0x28:
      return &q.control;
    case 0x38:
      return receive ? nullptr : &q.back_low;
    case 0x3c:
      return receive ? nullptr : &q.back_high;
    default:
      return nullptr;
  }
}

uint32_t Vf::read32(uint32_t offset) {
  if (reads_zero) return 0;
  pf_turn();
  bool writable;
  uint32_t mask;
  if (const uint32_t* reg = queue_register(offset, writable, mask)) return *reg;
  if (offset >= kMemory && offset < kMemoryEnd) return memory_[(offset - kMemory) / 4];
  if (offset >= kEitr && offset < kEitr + 4 * kVectors) return eitr_[(offset - kEitr) / 4];
  switch (offset) {
    case kStatus:
      return kStatusUp;
    case kMailbox:
      return read_mailbox();
    case kEics:
      return eics_;
    case kEims:
      return eims_;
    case kEimc:
      return eimc_;
    case kEiac:
      return auto_clear_;
    case kEiam:
      return auto_mask_;
    case kEicr:
      return std::exchange(eicr_, 0);
    case kVtivar:
      return vtivar_;
    case kVtivarMisc:
      return vtivar_misc_;
    case 0xf10:
      return count_.received;
    case 0xf14:
      return count_.sent;
    case 0xf18:
      return count_.bytes_received;
    case 0xf34:
      return count_.bytes_sent;
    case 0xf3c:
      return count_.multicast_received;
    default:
      return 0;
  }
}

void Vf::write32(uint32_t offset, uint32_t value) {
  if (reads_zero) return;
  bool writable;
  uint32_t mask;
  if (uint32_t* reg = queue_register(offset, writable, mask)) {
    if (writable) *reg = value & mask;
    // Only the doorbell sends; enabling a queue that has something to send does not.
    if ((offset & 0xff) == 0x18 && offset >= 0x3800) transmit((offset >> 8) & 1);
    return;
  }
  if (offset >= kMemory && offset < kMemoryEnd) {
    memory_[(offset - kMemory) / 4] = value;
    return;
  }
  if (offset >= kEitr && offset < kEitr + 4 * kVectors) {
    eitr_[(offset - kEitr) / 4] = value & 0x7fffffff;
    return;
  }
  const uint32_t vectors = value & kAllVectors;
  switch (offset) {
    case kCtrl:
      if (value & kCtrlReset) function_reset();
      break;
    case kMailbox:
      write_mailbox(value);
      break;
    case kEics:
      eics_ = value;
      raise(vectors, vectors & auto_mask_);
      break;
    case kEims:
      eims_ = value;
      raise(0, vectors);
      break;
    case kEimc:
      eimc_ = value;
      mask_ &= ~vectors;
      break;
    case kEiac:
      auto_clear_ = vectors;
      break;
    case kEiam:
      auto_mask_ = vectors;
      break;
    case kEicr:
      eicr_ = value;
      causes_ &= ~vectors;
      break;
    case kVtivar:
      vtivar_ = value;
      for (uint32_t byte = 0; byte < 4; ++byte)
        if (const uint32_t entry = value >> 8 * byte & 0xff; entry & 0x80)
          pf_table_ |= (entry & 0x87) << 8 * byte;
      break;
    case kVtivarMisc:
      vtivar_misc_ = value;
      break;
    default:
      break;  // STATUS and the counters cannot be written
  }
}

// Ring registers, throttling, vectors, the interrupt mask, mailbox memory and the TX contexts stay as they
// are.
void Vf::function_reset() {
  for (uint32_t q = 0; q < kQueues; ++q) {
    rx_[q].control &= ~(1u << 25);
    tx_[q].control &= ~(1u << 25);
    sender_[q].frame.clear();
    sender_[q].first.reset();
  }
  pf_.function_reset();
  request_due_.reset();
}

// ---- mailbox

void Vf::write_mailbox(uint32_t value) {
  if (value & kReq) {
    request_due_ = pf_.policy.answer_after;
    acknowledged_ = false;
  }
  if (!(value & kVfu))
    status_ &= ~kVfu;
  else if (!(status_ & kPfu))
    status_ |= kVfu;
}

uint32_t Vf::read_mailbox() {
  const uint32_t value = (status_ & ~kRsti) | (pf_.policy.in_reset ? kRsti : 0);
  status_ &= ~(kPfSts | kPfAck | kRstd);
  return value;
}

void Vf::pf_turn() {
  if (!request_due_ || !pf_.policy.answers || pf_.policy.in_reset) return;
  if (*request_due_ > 0) {
    --*request_due_;
    return;
  }
  if (!acknowledged_) {
    acknowledged_ = true;
    status_ |= kPfAck;
    raise_mailbox();
    return;
  }
  request_due_.reset();
  Message reply;
  const size_t words = pf_.handle(memory_, reply);
  if (words == 0) return;
  std::copy_n(reply.begin(), words, memory_.begin());
  status_ |= kPfSts;
  raise_mailbox();
}

void Vf::pf_notify() {
  memory_[0] = mailbox::kPfControl | (pf_.receives() ? mailbox::kClearToSend : 0);
  status_ |= kPfSts;
  raise_mailbox();
}

// ---- interrupts

// A message goes out when a cause and its mask bit come together; a cause that waits fires when it is
// unmasked.
void Vf::raise(uint32_t causes, uint32_t unmask) {
  const uint32_t before = causes_ & mask_;
  causes_ |= causes;
  mask_ |= unmask;
  const uint32_t fresh = causes_ & mask_ & ~before;
  for (uint32_t v = 0; v < kVectors; ++v) {
    if (!(fresh & 1u << v)) continue;
    if (auto_clear_ & 1u << v) causes_ &= ~(1u << v);
    if (auto_mask_ & 1u << v) mask_ &= ~(1u << v);
    ports_.interrupt(v);
  }
}

void Vf::raise_queue(uint32_t byte_of_ivar) {
  const uint32_t entry = pf_table_ >> 8 * byte_of_ivar & 0xff;
  if ((entry & 0x80) && (entry & 7) < kVectors) raise(1u << (entry & 7));
}

// Two bits of the entry, as a mask: 0x82 raises vector 1.
void Vf::raise_mailbox() {
  if (vtivar_misc_ & 0x80) raise(vtivar_misc_ & 3);
}

// ---- transmit

void Vf::transmit(uint32_t q) {
  Queue& ring = tx_[q];
  bool report = false;
  while (ring.enabled() && pf_.sends() && !ring.empty()) {
    const uint64_t at = ring.at(ring.head);
    Descriptor d;
    if (!ports_.dma_read(at, bytes_of(d))) break;
    consume(q, d);
    ring.head = ring.head + 1 >= ring.count() ? 0 : ring.head + 1;
    if (!(d.word[2] & kReport)) continue;
    report = true;
    if (ring.back_low & 1) {
      ports_.dma_write(uint64_t{ring.back_high} << 32 | (ring.back_low & ~3u), bytes_of(ring.head));
    } else {
      d.word[3] |= kDone;
      ports_.dma_write(at + 12, bytes_of(d.word[3]));
    }
  }
  if (report) raise_queue(1 + 2 * q);
}

void Vf::consume(uint32_t q, const Descriptor& d) {
  Transmitter& t = sender_[q];
  if (!(d.word[2] & kExtended)) return;
  if ((d.word[2] & kData) == kContext) {
    t.context[d.word[3] >> 4 & 1] = d.word;
    return;
  }
  if ((d.word[2] & kData) != kData) return;

  if (!t.first) t.first = d;
  const size_t length = d.word[2] & 0xffff;
  const size_t before = t.frame.size();
  t.frame.resize(before + length);
  const bool read =
      ports_.dma_read(uint64_t{d.word[1]} << 32 | d.word[0], std::span(t.frame).subspan(before));
  if (!(d.word[2] & kEop)) return;

  std::vector<std::byte> frame = std::exchange(t.frame, {});
  const Descriptor first = *std::exchange(t.first, {});
  if (!read || frame.size() < 14 || frame.size() > kLargestFrame || !pf_.may_send(frame)) return;
  if (first.word[2] & kInsertVlan) {
    const uint32_t tag = t.context[first.word[3] >> 4 & 1][0] >> 16;
    const std::byte vlan[] = {std::byte{0x81}, std::byte{0}, std::byte(tag >> 8 & 0xff),
                              std::byte(tag & 0xff)};
    frame.insert(frame.begin() + 12, std::begin(vlan), std::end(vlan));
  }
  ++count_.sent;
  count_.bytes_sent += static_cast<uint32_t>(frame.size() + 4);
  ports_.transmit(frame);
}

// ---- receive

bool Vf::receive(std::span<const std::byte> arriving) {
  if (arriving.size() < 14 || !pf_.receives()) return false;
  std::vector<std::byte> frame(arriving.begin(), arriving.end());
  if (frame.size() < kSmallestFrame) frame.resize(kSmallestFrame);

  auto octet = [&](size_t at) { return std::to_integer<int>(frame[at]); };
  const bool tagged = octet(12) == 0x81 && octet(13) == 0;
  const int vlan = tagged ? (octet(14) << 8 | octet(15)) & 0xfff : -1;
  const uint32_t tag = tagged ? static_cast<uint32_t>(octet(14) << 8 | octet(15)) : 0;
  if (!pf_.accepts(frame, vlan)) return false;
  if (tagged) frame.erase(frame.begin() + 12, frame.begin() + 16);

  // No RSS: the first queue that is on takes it.
  const uint32_t q = rx_[0].enabled() ? 0 : 1;
  Queue& ring = rx_[q];
  if (!ring.enabled() || ring.empty()) return false;
  const size_t room = (ring.srrctl & 0x7f) ? size_t{ring.srrctl & 0x7f} * 1024 : 2048;
  const size_t needed = (frame.size() + room - 1) / room;
  if (needed > ring.pending()) return false;

  for (size_t done = 0; done < frame.size();) {
    const size_t part = std::min(room, frame.size() - done);
    const bool last = done + part == frame.size();
    Descriptor d;
    if (!ports_.dma_read(ring.at(ring.head), bytes_of(d))) return false;
    if (!ports_.dma_write(uint64_t{d.word[1]} << 32 | d.word[0], std::span(frame).subspan(done, part)))
      return false;
    const uint32_t status = kDone | (last ? kRxEop | (tagged ? kRxVlan : 0) : 0);
    d.word = {0, 0, status, static_cast<uint32_t>(part) | (last ? tag << 16 : 0)};
    if (!ports_.dma_write(ring.at(ring.head), bytes_of(d))) return false;
    ring.head = ring.head + 1 >= ring.count() ? 0 : ring.head + 1;
    done += part;
  }
  ++count_.received;
  count_.bytes_received += static_cast<uint32_t>(frame.size() + 4);
  if (octet(0) & 1) ++count_.multicast_received;
  raise_queue(2 * q);
  return true;
}

}  // namespace nic82576
