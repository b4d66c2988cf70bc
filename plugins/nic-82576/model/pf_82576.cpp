// SPDX-License-Identifier: Apache-2.0
#include "pf_82576.hpp"

#include <algorithm>
#include <cstring>

namespace nic82576 {
namespace {

constexpr uint32_t kFilterClear = 1, kFilterAdd = 2, kPromiscMulticast = 2;
constexpr size_t kMaxFilters = 16, kMaxHashes = 30, kMaxVlans = 32;
constexpr uint32_t kLargestFrame = 0x3f00;

uint32_t info(const Message& m) {
  return m[0] >> mailbox::kInfoShift & 0xff;
}
MacAddress mac_in(const Message& m) {
  MacAddress mac;
  std::memcpy(mac.data(), &m[1], mac.size());
  return mac;
}
bool valid(const MacAddress& mac) {
  return mac != MacAddress{} && !(mac[0] & 1);
}
MacAddress mac_at(std::span<const std::byte> frame, size_t at) {
  MacAddress mac;
  std::memcpy(mac.data(), frame.data() + at, mac.size());
  return mac;
}

}  // namespace

void PfSide::function_reset() {
  enabled_ = false;
  mac_ = policy.admin_mac;
  filters_.clear();
  hashes_.clear();
  vlans_.clear();
  all_multicast_ = false;
  max_frame_ = 0;
}

size_t PfSide::handle(const Message& request, Message& reply) {
  using namespace mailbox;
  reply = request;
  if (request[0] & (kAck | kNack)) return 0;  // already answered
  if (request[0] == kReset) {
    function_reset();
    enabled_ = true;
    reply[0] = kReset | (valid(mac_) ? kAck : kNack);
    reply[1] = reply[2] = 0;
    std::memcpy(&reply[1], mac_.data(), mac_.size());
    return 3;
  }
  if (!enabled_) return 0;

  bool good = false;
  switch (request[0] & kTypeMask) {
    case kMac:
      good = set_mac(request);
      break;
    case kMulticast:
      hashes_.clear();
      for (size_t i = 0; i < std::min<size_t>(info(request), kMaxHashes); ++i)
        hashes_.push_back(static_cast<uint16_t>(request[1 + i / 2] >> 16 * (i % 2)));
      good = true;
      break;
    case kVlan: {
      const auto id = static_cast<uint16_t>(request[1] & 0xfff);
      if (policy.port_vlan) break;
      if (!info(request))
        vlans_.erase(id);
      else if (vlans_.size() < kMaxVlans)
        vlans_.insert(id);
      else
        break;
      good = true;
      break;
    }
    case kLpe:
      if (request[1] > kLargestFrame) break;
      max_frame_ = request[1];
      good = true;
      break;
    case kPromisc:
      good = set_promiscuous(reply);
      break;
    default:
      break;
  }
  reply[0] |= kClearToSend | (good ? kAck : kNack);
  return 1;
}

bool PfSide::set_mac(const Message& request) {
  const MacAddress mac = mac_in(request);
  const bool fixed = policy.admin_mac != MacAddress{} && !policy.trusted;
  switch (info(request)) {
    case 0:
      // igb refuses even the address it set itself.
      if (fixed || !valid(mac)) return false;
      mac_ = mac;
      return true;
    case kFilterClear:
      filters_.clear();
      return true;
    case kFilterAdd:
      if (fixed || !valid(mac) || filters_.size() == kMaxFilters) return false;
      filters_.push_back(mac);
      return true;
    default:
      return false;
  }
}

// igb takes the bits it knows out of the message that it then sends back.
bool PfSide::set_promiscuous(Message& request) {
  all_multicast_ = info(request) & kPromiscMulticast;
  request[0] &= ~(kPromiscMulticast << mailbox::kInfoShift);
  return info(request) == 0;
}

bool PfSide::accepts(std::span<const std::byte> frame, int vlan) const {
  const size_t with_fcs = frame.size() + 4;
  if (max_frame_ ? with_fcs > max_frame_ : with_fcs > (vlan < 0 ? 1518u : 1522u)) return false;
  if (vlan >= 0 && !vlans_.count(static_cast<uint16_t>(vlan))) return false;
  const MacAddress to = mac_at(frame, 0);
  if (to == MacAddress{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) return true;
  if (!(to[0] & 1)) return to == mac_ || std::find(filters_.begin(), filters_.end(), to) != filters_.end();
  const auto hash = static_cast<uint16_t>((to[5] << 8 | to[4]) >> 4 & 0xfff);
  return all_multicast_ || std::find(hashes_.begin(), hashes_.end(), hash) != hashes_.end();
}

bool PfSide::may_send(std::span<const std::byte> frame) const {
  return !policy.spoof_check || mac_at(frame, 6) == mac_;
}

}  // namespace nic82576
