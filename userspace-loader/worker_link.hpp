// SPDX-License-Identifier: Apache-2.0
//
// What a worker and its supervisor say to each other, over a pair of SOCK_SEQPACKET sockets: "ready", and requests to the
// PF's side with their answers. The supervisor takes every message for hostile: length, kind and request are checked, and
// the function a request is for is never part of it.
//
//     worker                         supervisor
//       | ------- ready -------------> |  sd_notify(READY=1)
//       | ------- pf_request, seq ---> |  netlink, for this VF
//       | <------ pf_answer, seq ----- |
//
// Thread rule: one thread per end. Errors: Result. A worker whose supervisor is gone serves on; its requests fail with
// ENOTCONN.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include <hookline/device_access.hpp>
#include <hookline/hook_channel.hpp>

namespace hookline::loader {

enum class WorkerWord : uint32_t { ready = 1, pf_request = 2, pf_answer = 3 };

struct WorkerMessage {
  WorkerWord word = WorkerWord::ready;
  int32_t error = 0;  ///< pf_answer: positive errno or 0
  uint32_t seq = 0;
  uint32_t reserved = 0;
  hookline_pf_request request{};
};

/// Nothing: the bytes are no message.
std::optional<WorkerMessage> parse_worker_message(const void* data, size_t length);

/// The worker's end.
class SupervisorPort final : public PfPort {
 public:
  explicit SupervisorPort(FileDescriptor socket) : socket_(std::move(socket)) {}
  void tell_ready();
  /// Waits at most two seconds.
  Result<void> request(hookline_pf_request& request) override;

 private:
  FileDescriptor socket_;
  uint32_t seq_ = 0;
};

/// The supervisor's end.
class WorkerPort {
 public:
  /// Does a request for the one function this worker serves.
  using PfHandler = std::function<Result<void>(hookline_pf_request&)>;
  enum class Heard { nothing, ready, request, nonsense, closed };

  WorkerPort(FileDescriptor socket, PfHandler handler) : socket_(std::move(socket)), handler_(std::move(handler)) {}
  int fd() const { return socket_.get(); }
  /// Takes one message, if there is one, and answers it.
  Heard hear();

 private:
  FileDescriptor socket_;
  PfHandler handler_;
};

/// Two connected ends, close-on-exec.
Result<std::pair<FileDescriptor, FileDescriptor>> worker_socketpair();

}  // namespace hookline::loader
