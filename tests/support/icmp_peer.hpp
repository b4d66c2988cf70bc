// SPDX-License-Identifier: Apache-2.0
//
// The other end of the wire: answers ARP and ICMP echo, and builds the requests whose answers tests check
// byte by byte.
//
// Pure functions on frames without FCS; any thread. Errors: a frame that is not what was asked for is
// std::nullopt.
//
//     Host guest{{2, 0, 0, 0, 0, 1}, 0x0a00020f}, peer{{2, 0, 0, 0, 0, 9}, 0x0a000202};
//     nic.send(echo_request(guest, peer, 7, 1));
//     on the wire:   if (auto reply = answer(peer, frame)) model receives *reply
//     in the guest:  auto echo = parse_echo_reply(frame);   // checksums and payload verified
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace hookline::testing {

using Frame = std::vector<std::byte>;

struct Host {
  std::array<uint8_t, 6> mac;
  uint32_t ip;  ///< host byte order
};

struct Echo {
  uint16_t id, sequence;
  uint32_t source_ip;
};

/// Who has `target_ip`, asked by `from`.
Frame arp_request(const Host& from, uint32_t target_ip);
/// The address an ARP reply tells.
std::optional<Host> parse_arp_reply(std::span<const std::byte> frame);

/// `payload` bytes follow a pattern of id and sequence, so that a mixed-up buffer shows.
Frame echo_request(const Host& from, const Host& to, uint16_t id, uint16_t sequence, size_t payload = 56);
/// Checks both checksums and the payload.
std::optional<Echo> parse_echo_reply(std::span<const std::byte> frame);

/// What `self` sends back to this frame: an ARP reply, an echo reply, or nothing. An 802.1Q tag is kept.
std::optional<Frame> answer(const Host& self, std::span<const std::byte> frame);

/// The same frame with an 802.1Q tag.
Frame with_vlan(std::span<const std::byte> frame, uint16_t id);
/// The tag's VLAN id, if there is one.
std::optional<uint16_t> vlan_of(std::span<const std::byte> frame);

}  // namespace hookline::testing
