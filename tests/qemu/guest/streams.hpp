// SPDX-License-Identifier: Apache-2.0
//
// Traffic of one interface: a TCP stream to an echo server and back (outbound), one that a peer sends here in the
// interface's VLAN (inbound), UDP datagrams that are sent back as they came, and multicast datagrams that are counted.
//
// One thread; nothing waits. A connection that ends is an error of the network and is counted, then begun anew.
//
//     Streams streams(nic.settings(), pattern);
//     streams.add_to(polls); poll(...); streams.work(now);
#pragma once

#include <poll.h>

#include <cstdint>
#include <vector>

#include "nic.hpp"
#include "pattern.hpp"

namespace hookline::guest {

struct StreamCounts {
  uint64_t out_ok = 0, out_wrong = 0, in_ok = 0, in_wrong = 0;  // bytes
  uint64_t broken = 0;                                          // connections that ended
  uint64_t datagrams = 0, multicasts = 0;
};

class Streams {
 public:
  Streams(const NicSettings& nic, const Pattern& pattern);

  void add_to(std::vector<pollfd>& polls) const;
  /// Does what can be done now. bytes_per_second: of the outbound stream.
  void work(double now, double bytes_per_second);
  /// Inbound data stays unread in the memory that the device has written it to.
  void hold_inbound(bool hold) { hold_ = hold; }
  const StreamCounts& counts() const { return counts_; }

 private:
  void connect_out();
  void send_out(double now, double bytes_per_second);
  /// Checks all that has come. Returns what the last recv() did.
  ssize_t receive(int fd, uint64_t& position, uint64_t& ok, uint64_t& wrong) const;
  void receive_out();
  void receive_in();
  void answer_datagrams();
  void count_multicasts();
  void close_broken(int& fd);

  const NicSettings nic_;
  const Pattern& pattern_;
  StreamCounts counts_;
  int out_ = -1, listener_ = -1, in_ = -1, echo_ = -1, multicast_ = -1;
  bool hold_ = false;
  uint64_t sent_ = 0, returned_ = 0, received_ = 0;  // of the present connections
  double allowed_ = 0, last_ = 0, retry_ = 0;
};

}  // namespace hookline::guest
