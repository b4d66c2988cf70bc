// SPDX-License-Identifier: Apache-2.0
#include "streams.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace hookline::guest {
namespace {

constexpr uint16_t kEcho = 7, kInbound = 9000, kDatagrams = 9001, kMulticast = 9002;
constexpr uint64_t kWindow = 16384;  // bytes under way
constexpr double kBurst = 8192;

sockaddr_in address_of(in_addr host, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr = host;
  return address;
}

int open_socket(int type, in_addr local, uint16_t port) {
  const int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = address_of(local, port);
  if (fd < 0) return fd;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

bool would_block() { return errno == EAGAIN || errno == EINPROGRESS || errno == ENOTCONN; }

}  // namespace

Streams::Streams(const NicSettings& nic, const Pattern& pattern) : nic_(nic), pattern_(pattern) {
  listener_ = open_socket(SOCK_STREAM, nic_.vlan_address(), kInbound);
  listen(listener_, 1);
  echo_ = open_socket(SOCK_DGRAM, nic_.address, kDatagrams);
  in_addr group{htonl(0xef010101)};
  multicast_ = open_socket(SOCK_DGRAM, group, kMulticast);
  ip_mreqn join{group, nic_.address, 0};
  setsockopt(multicast_, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join);
}

void Streams::add_to(std::vector<pollfd>& polls) const {
  for (const int fd : {out_, listener_, hold_ ? -1 : in_, echo_, multicast_})
    if (fd >= 0) polls.push_back({fd, POLLIN, 0});
}

void Streams::work(double now, double bytes_per_second) {
  if (out_ < 0 && now >= retry_) {
    retry_ = now + 1;
    connect_out();
  }
  if (out_ >= 0) receive_out();
  if (out_ >= 0) send_out(now, bytes_per_second);
  receive_in();
  answer_datagrams();
  count_multicasts();
  last_ = now;
}

void Streams::close_broken(int& fd) {
  ++counts_.broken;
  close(fd);
  fd = -1;
}

void Streams::connect_out() {
  out_ = open_socket(SOCK_STREAM, nic_.address, 0);
  if (out_ < 0) return;
  const int on = 1;
  setsockopt(out_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const sockaddr_in peer = address_of(nic_.echo, kEcho);
  sent_ = returned_ = 0;
  if (connect(out_, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) != 0 && !would_block()) close_broken(out_);
}

void Streams::send_out(double now, double bytes_per_second) {
  allowed_ = std::min(kBurst, allowed_ + (now - last_) * bytes_per_second);
  uint8_t piece[2048];
  while (allowed_ >= 1 && sent_ - returned_ < kWindow) {
    const size_t length = std::min({sizeof piece, static_cast<size_t>(allowed_), static_cast<size_t>(kWindow - (sent_ - returned_))});
    pattern_.fill(sent_, std::span(piece).first(length));
    const ssize_t done = send(out_, piece, length, MSG_NOSIGNAL);
    if (done < 0) {
      if (!would_block()) close_broken(out_);
      return;
    }
    sent_ += static_cast<uint64_t>(done);
    allowed_ -= static_cast<double>(done);
  }
}

ssize_t Streams::receive(int fd, uint64_t& position, uint64_t& ok, uint64_t& wrong) const {
  uint8_t piece[4096];
  ssize_t got;
  while ((got = recv(fd, piece, sizeof piece, 0)) > 0) {
    const uint64_t differ = pattern_.differences(position, std::span(piece).first(static_cast<size_t>(got)));
    position += static_cast<uint64_t>(got);
    wrong += differ;
    ok += static_cast<uint64_t>(got) - differ;
  }
  return got;
}

void Streams::receive_out() {
  const ssize_t got = receive(out_, returned_, counts_.out_ok, counts_.out_wrong);
  if (got == 0 || !would_block()) close_broken(out_);
}

void Streams::receive_in() {
  const int next = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (next >= 0) {
    if (in_ >= 0) close(in_);
    in_ = next;
    received_ = 0;
  }
  if (in_ < 0 || hold_) return;
  const ssize_t got = receive(in_, received_, counts_.in_ok, counts_.in_wrong);
  if (got == 0) {  // the peer has said all it wanted
    close(in_);
    in_ = -1;
  } else if (!would_block()) {
    close_broken(in_);
  }
}

void Streams::answer_datagrams() {
  uint8_t datagram[1500];
  sockaddr_in from{};
  socklen_t size = sizeof from;
  ssize_t got;
  while ((got = recvfrom(echo_, datagram, sizeof datagram, 0, reinterpret_cast<sockaddr*>(&from), &size)) >= 0) {
    sendto(echo_, datagram, static_cast<size_t>(got), 0, reinterpret_cast<sockaddr*>(&from), size);
    ++counts_.datagrams;
    size = sizeof from;
  }
}

void Streams::count_multicasts() {
  uint8_t datagram[1500];
  while (recv(multicast_, datagram, sizeof datagram, 0) >= 0) ++counts_.multicasts;
}

}  // namespace hookline::guest
