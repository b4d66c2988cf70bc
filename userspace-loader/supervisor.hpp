// SPDX-License-Identifier: Apache-2.0
//
// Keeps one worker serving one device: attaches, hands the channel to a worker process, starts another when it ends, does
// its requests to the PF. It holds no copy of the channel: when the worker ends, the kernel knows.
//
//     attach --> worker --ends--> wait (not at all the first time) --> attach ...
//        ^                                                               |
//        +---- a worker that an earlier supervisor left behind ends -----+
//
// A worker outlives its supervisor; the next supervisor waits for that one's end and then goes on as above. One thread.
// Errors: exit codes, and lines in the log.
//
//     return Supervisor(record, root, state, sysfs, log).run();
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <spdlog/logger.h>

#include "backoff.hpp"
#include "device_record.hpp"
#include "pf_netlink.hpp"
#include "run_state.hpp"
#include "sysfs.hpp"
#include "worker_link.hpp"

namespace hookline::loader {

// How a worker says why it has ended.
inline constexpr int kWorkerStopped = 0;  ///< told to
inline constexpr int kWorkerGone = 10;    ///< the function has left the driver
inline constexpr int kWorkerUnable = 11;  ///< it cannot serve this device: its plugins or its rights are wrong

// Where a worker finds what it is given.
inline constexpr int kChannelFd = 3;
inline constexpr int kSupervisorFd = 4;

class Supervisor {
 public:
  Supervisor(DeviceRecord record, std::string root, int verbosity, const RunState& state, const Sysfs& sysfs,
             std::shared_ptr<spdlog::logger> log);

  /// Until SIGTERM or SIGINT, or until the function leaves the driver.
  int run();

 private:
  using Clock = std::chrono::steady_clock;

  struct Worker {
    Process process;
    FileDescriptor pidfd;
    bool is_child = true;            ///< else it was left behind by an earlier supervisor
    std::optional<WorkerPort> port{};  ///< only of a child
    Clock::time_point started = Clock::now();
  };

  bool adopt_earlier_worker();
  void try_to_start();
  Result<void> start_worker();
  void on_worker_end();
  Result<void> ask_pf(hookline_pf_request& request);
  Result<void> remember_pf(const hookline_pf_request& request) const;
  void hear_worker();
  /// Ends a worker that holds the channel but does not serve an open device.
  void end_hung_worker();
  void stop_worker();
  void on_signal();
  int next_timeout_ms() const;
  void tell(const char* state) const;
  void write_state() const;

  const DeviceRecord record_;
  const std::string address_, root_;
  const int verbosity_;
  const RunState& state_;
  const PfNetlink pf_;
  std::shared_ptr<spdlog::logger> log_;

  FileDescriptor signals_;
  std::optional<Worker> worker_;
  Backoff backoff_;
  Clock::time_point restart_at_ = Clock::now();
  std::optional<Clock::time_point> unserved_since_;
  ServiceState service_;
  bool was_ready_ = false, said_busy_ = false;
  std::optional<int> exit_code_;
  std::chrono::microseconds watchdog_{0};
};

}  // namespace hookline::loader
