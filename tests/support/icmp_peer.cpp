// SPDX-License-Identifier: Apache-2.0
#include "tests/support/icmp_peer.hpp"

#include <algorithm>

namespace hookline::testing {
namespace {

constexpr size_t kEthernet = 14, kTag = 4, kIp = 20, kIcmp = 8, kArp = 28;
constexpr uint16_t kTypeArp = 0x0806, kTypeIp = 0x0800, kTypeVlan = 0x8100;
constexpr uint8_t kEchoReply = 0, kEchoRequest = 8;

void put8(Frame& f, uint8_t v) {
  f.push_back(std::byte{v});
}
void put16(Frame& f, uint16_t v) {
  put8(f, static_cast<uint8_t>(v >> 8));
  put8(f, static_cast<uint8_t>(v));
}
void put32(Frame& f, uint32_t v) {
  put16(f, static_cast<uint16_t>(v >> 16));
  put16(f, static_cast<uint16_t>(v));
}
void put_mac(Frame& f, const std::array<uint8_t, 6>& mac) {
  for (uint8_t b : mac) put8(f, b);
}
uint16_t get16(std::span<const std::byte> f, size_t at) {
  return static_cast<uint16_t>(std::to_integer<unsigned>(f[at]) << 8 | std::to_integer<unsigned>(f[at + 1]));
}
uint32_t get32(std::span<const std::byte> f, size_t at) {
  return uint32_t{get16(f, at)} << 16 | get16(f, at + 2);
}
std::array<uint8_t, 6> get_mac(std::span<const std::byte> f, size_t at) {
  std::array<uint8_t, 6> mac;
  for (size_t i = 0; i < mac.size(); ++i) mac[i] = std::to_integer<uint8_t>(f[at + i]);
  return mac;
}

uint16_t checksum(std::span<const std::byte> bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) sum += get16(bytes, i);
  if (bytes.size() % 2) sum += std::to_integer<uint32_t>(bytes.back()) << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}
void set16(std::span<std::byte> f, size_t at, uint16_t v) {
  f[at] = std::byte(v >> 8);
  f[at + 1] = std::byte(v & 0xff);
}

std::byte pattern(uint16_t id, uint16_t sequence, size_t i) {
  return std::byte(0xff & (id * 31 + sequence * 7 + i));
}

/// Where the EtherType is: behind a tag, if there is one.
std::optional<size_t> type_at(std::span<const std::byte> f) {
  if (f.size() < kEthernet) return std::nullopt;
  if (get16(f, 12) != kTypeVlan) return 12;
  if (f.size() < kEthernet + kTag) return std::nullopt;
  return 12 + kTag;
}

/// The ICMP message of an intact IPv4 frame, without Ethernet padding.
std::optional<std::span<const std::byte>> icmp_of(std::span<const std::byte> f, size_t ip) {
  if (f.size() < ip + kIp + kIcmp || get16(f, ip - 2) != kTypeIp || f[ip] != std::byte{0x45})
    return std::nullopt;
  const size_t total = get16(f, ip + 2);
  if (total < kIp + kIcmp || ip + total > f.size() || f[ip + 9] != std::byte{1}) return std::nullopt;
  if (checksum(f.subspan(ip, kIp)) != 0) return std::nullopt;
  const auto icmp = f.subspan(ip + kIp, total - kIp);
  if (checksum(icmp) != 0) return std::nullopt;
  return icmp;
}

}  // namespace

Frame arp_request(const Host& from, uint32_t target_ip) {
  Frame f;
  f.reserve(60);
  for (int i = 0; i < 6; ++i) put8(f, 0xff);
  put_mac(f, from.mac);
  put16(f, kTypeArp);
  put16(f, 1), put16(f, kTypeIp), put8(f, 6), put8(f, 4), put16(f, 1);
  put_mac(f, from.mac), put32(f, from.ip);
  put_mac(f, {}), put32(f, target_ip);
  f.resize(60);
  return f;
}

std::optional<Host> parse_arp_reply(std::span<const std::byte> f) {
  const auto type = type_at(f);
  if (!type || f.size() < *type + 2 + kArp || get16(f, *type) != kTypeArp) return std::nullopt;
  const size_t arp = *type + 2;
  if (get16(f, arp + 6) != 2) return std::nullopt;
  return Host{get_mac(f, arp + 8), get32(f, arp + 14)};
}

Frame echo_request(const Host& from, const Host& to, uint16_t id, uint16_t sequence, size_t payload) {
  Frame f;
  f.reserve(std::max<size_t>(60, kEthernet + kIp + kIcmp + payload));
  put_mac(f, to.mac), put_mac(f, from.mac), put16(f, kTypeIp);
  put8(f, 0x45), put8(f, 0), put16(f, static_cast<uint16_t>(kIp + kIcmp + payload));
  put16(f, sequence), put16(f, 0), put8(f, 64), put8(f, 1), put16(f, 0);
  put32(f, from.ip), put32(f, to.ip);
  set16(f, kEthernet + 10, checksum(std::span(f).subspan(kEthernet, kIp)));
  put8(f, kEchoRequest), put8(f, 0), put16(f, 0), put16(f, id), put16(f, sequence);
  for (size_t i = 0; i < payload; ++i) f.push_back(pattern(id, sequence, i));
  set16(f, kEthernet + kIp + 2, checksum(std::span(f).subspan(kEthernet + kIp)));
  if (f.size() < 60) f.resize(60);
  return f;
}

std::optional<Echo> parse_echo_reply(std::span<const std::byte> f) {
  const auto type = type_at(f);
  if (!type) return std::nullopt;
  const size_t ip = *type + 2;
  const auto icmp = icmp_of(f, ip);
  if (!icmp || (*icmp)[0] != std::byte{kEchoReply}) return std::nullopt;
  const Echo echo{get16(*icmp, 4), get16(*icmp, 6), get32(f, ip + 12)};
  for (size_t i = 0; i + kIcmp < icmp->size(); ++i)
    if ((*icmp)[kIcmp + i] != pattern(echo.id, echo.sequence, i)) return std::nullopt;
  return echo;
}

std::optional<Frame> answer(const Host& self, std::span<const std::byte> f) {
  const auto type = type_at(f);
  if (!type) return std::nullopt;
  const size_t body = *type + 2;
  Frame reply(f.begin(), f.end());
  auto put_at = [&](size_t at, auto&& bytes) {
    std::copy(bytes.begin(), bytes.end(), reply.begin() + static_cast<ptrdiff_t>(at));
  };
  Frame own_mac, own_ip;
  put_mac(own_mac, self.mac), put32(own_ip, self.ip);

  put_at(0, f.subspan(6, 6));
  put_at(6, own_mac);
  if (get16(f, *type) == kTypeArp && f.size() >= body + kArp) {
    if (get16(f, body + 6) != 1 || get32(f, body + 24) != self.ip) return std::nullopt;
    set16(reply, body + 6, 2);
    put_at(body + 18, f.subspan(body + 8, 10));
    put_at(body + 8, own_mac), put_at(body + 14, own_ip);
    return reply;
  }
  const auto icmp = icmp_of(f, body);
  if (!icmp || (*icmp)[0] != std::byte{kEchoRequest} || get32(f, body + 16) != self.ip) return std::nullopt;
  put_at(body + 12, own_ip), put_at(body + 16, f.subspan(body + 12, 4));
  reply[body + kIp] = std::byte{kEchoReply};
  set16(reply, body + kIp + 2, 0);
  set16(reply, body + kIp + 2, checksum(std::span(reply).subspan(body + kIp, icmp->size())));
  return reply;
}

Frame with_vlan(std::span<const std::byte> frame, uint16_t id) {
  Frame f(frame.begin(), frame.begin() + 12);
  put16(f, kTypeVlan), put16(f, id);
  f.insert(f.end(), frame.begin() + 12, frame.end());
  return f;
}

std::optional<uint16_t> vlan_of(std::span<const std::byte> frame) {
  if (frame.size() < kEthernet + kTag || get16(frame, 12) != kTypeVlan) return std::nullopt;
  return static_cast<uint16_t>(get16(frame, 14) & 0xfff);
}

}  // namespace hookline::testing
