// SPDX-License-Identifier: Apache-2.0
//
// What client and model worker say to each other over a SOCK_SEQPACKET socket pair: one message, one packet, a header and
// the bytes that belong to it. Each request has one reply; notices of the worker come at any time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tests/demo/side.hpp"

namespace hookline::demo {

enum class Message : uint32_t {
  // client to worker
  read = 1,        ///< register `argument` of BAR 0, 4 bytes
  write,           ///< `argument` = `value`
  enable,          ///< COMMAND: memory and bus master
  reset,
  set_state,       ///< `argument`: MigrationState
  precopy_sizes,
  read_state,      ///< at most `argument` bytes
  write_state,     ///< bytes
  receive,         ///< bytes: a frame arrives from the wire; has no reply
  // worker to client
  reply,           ///< `code` 0, or an errno and its text as bytes; `value`, bytes: what was asked for
  interrupt,       ///< `value`: the vector
  transmit,        ///< bytes: a frame leaves for the wire
};

struct MessageHeader {
  Message what;
  int32_t code = 0;
  uint64_t argument = 0;
  uint64_t value = 0;
};

constexpr size_t kMostBytes = 96 * 1024;

struct Packet {
  MessageHeader head = {};
  std::vector<std::byte> bytes;
};

/// False: the other end is gone.
bool send_packet(int socket, const MessageHeader& head, std::span<const std::byte> bytes = {});
bool receive_packet(int socket, Packet& packet);

/// The worker process: loads both files, opens the device and serves until the client closes the socket. `memory` is the
/// guest's, from IOVA 0. Its first reply says whether it came up.
int serve_model(int socket, uint32_t index, const ModelFiles& files, std::span<std::byte> memory);

}  // namespace hookline::demo
