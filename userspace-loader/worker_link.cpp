// SPDX-License-Identifier: Apache-2.0
#include "worker_link.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include <fmt/core.h>

namespace hookline::loader {
namespace {

constexpr auto kAnswerLimit = std::chrono::milliseconds(2000);

bool is_known(const WorkerMessage& message) {
  switch (message.word) {
    case WorkerWord::ready: return true;
    case WorkerWord::pf_answer: return message.error >= 0;
    case WorkerWord::pf_request:
      return message.request.what == HOOKLINE_PF_SET_MAC || message.request.what == HOOKLINE_PF_SET_VLAN ||
             message.request.what == HOOKLINE_PF_GET;
  }
  return false;
}

bool send_message(int socket, const WorkerMessage& message) {
  ssize_t n;
  do n = ::send(socket, &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(sizeof message);
}

}  // namespace

std::optional<WorkerMessage> parse_worker_message(const void* data, size_t length) {
  WorkerMessage message;
  if (length != sizeof message) return std::nullopt;
  std::memcpy(&message, data, sizeof message);
  if (message.reserved != 0 || !is_known(message)) return std::nullopt;
  return message;
}

void SupervisorPort::tell_ready() { send_message(socket_.get(), {.word = WorkerWord::ready}); }

Result<void> SupervisorPort::request(hookline_pf_request& request) {
  const uint32_t seq = ++seq_;
  if (!send_message(socket_.get(), {.word = WorkerWord::pf_request, .seq = seq, .request = request}))
    return fail(ENOTCONN, "the supervisor, which does requests to the PF, is gone");
  const auto deadline = std::chrono::steady_clock::now() + kAnswerLimit;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return fail(ETIMEDOUT, "the supervisor does not answer a request to the PF");
    pollfd ready{socket_.get(), POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(left.count())) <= 0) continue;
    char buffer[sizeof(WorkerMessage)];
    const ssize_t n = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC);
    if (n == 0) return fail(ENOTCONN, "the supervisor, which does requests to the PF, is gone");
    if (n < 0) continue;
    const auto answer = parse_worker_message(buffer, static_cast<size_t>(n));
    // An answer to an earlier request that was given up.
    if (!answer || answer->word != WorkerWord::pf_answer || answer->seq != seq) continue;
    request = answer->request;
    if (answer->error != 0)
      return fail(answer->error, fmt::format("the PF's side refused: {}", std::strerror(answer->error)));
    return {};
  }
}

WorkerPort::Heard WorkerPort::hear() {
  char buffer[sizeof(WorkerMessage)];
  const ssize_t n = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? Heard::nothing : Heard::closed;
  if (n == 0) return Heard::closed;
  const auto message = parse_worker_message(buffer, static_cast<size_t>(n));
  if (!message || message->word == WorkerWord::pf_answer) return Heard::nonsense;
  if (message->word == WorkerWord::ready) return Heard::ready;
  WorkerMessage answer = *message;
  answer.word = WorkerWord::pf_answer;
  const auto done = handler_(answer.request);
  answer.error = done ? 0 : done.error().code;
  send_message(socket_.get(), answer);
  return Heard::request;
}

Result<std::pair<FileDescriptor, FileDescriptor>> worker_socketpair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return fail(errno, fmt::format("cannot create a pair of sockets: {}", std::strerror(errno)));
  return std::pair(FileDescriptor(ends[0]), FileDescriptor(ends[1]));
}

}  // namespace hookline::loader
