// SPDX-License-Identifier: Apache-2.0
//
// The loader's memory: small JSON files in /run/hookline, one per device, gone with a reboot as the devices' state is.
//
//     0000:01:10.0.json           DeviceRecord, written before anything is changed, removed when all is given back
//     0000:01:00.0.pf.json        PfRecord, the same for VFs that were created
//     0000:01:10.0.pf-change.json PfChange, written before a plugin's request changes something on the PF
//     0000:01:10.0.service.json   ServiceState, written by the supervisor
//     0000:01:10.0.log            of a supervisor that runs without systemd
//     lock                        held by apply and detach
//
// Each file is replaced as a whole, so a reader sees the old or the new. Any thread, any process. Errors: Result, with
// the file's name; a file that is not there is no error.
//
//     RunState state(root);
//     Result<RunState::Lock> lock = state.lock();
//     if (auto ok = state.remember(record); !ok) return ok;   // only now change something
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <hookline/hook_channel.hpp>

#include "device_record.hpp"

namespace hookline::loader {

/// A process, told apart from another one that got the same number later.
struct Process {
  pid_t pid = 0;            ///< 0: none
  uint64_t start_time = 0;  ///< as in /proc/PID/stat
};

/// The running process of this number.
Process process_of(pid_t pid);
bool is_alive(const Process& process);

struct ServiceState {
  Process supervisor{};
  Process worker{};
  bool ready = false;      ///< the worker has its plugins and waits for the device
  uint64_t restarts = 0;   ///< of the worker, by this supervisor
  std::string last_end{};  ///< how the last worker ended; empty: none has
};

class RunState {
 public:
  explicit RunState(const std::filesystem::path& root = "/") : folder_(root / "run/hookline") {}

  Result<std::optional<DeviceRecord>> device(const PciAddress& address) const;
  Result<std::optional<PfRecord>> pf(const PciAddress& address) const;
  /// Of a VF, by its own address.
  Result<std::optional<PfChange>> pf_change(const PciAddress& address) const;
  /// An unreadable one counts as none: it only informs.
  std::optional<ServiceState> service(const PciAddress& address) const;
  /// Addresses with a record, in order.
  std::vector<PciAddress> devices() const;
  std::vector<PciAddress> pfs() const;

  Result<void> remember(const DeviceRecord& record) const;
  Result<void> remember(const PfRecord& record) const;
  Result<void> remember(const PfChange& change) const;
  Result<void> remember(const PciAddress& address, const ServiceState& service) const;
  /// Also the service state, the change on the PF and the log.
  Result<void> forget_device(const PciAddress& address) const;
  Result<void> forget_pf(const PciAddress& address) const;
  void forget_service(const PciAddress& address) const;

  std::filesystem::path log_file(const PciAddress& address) const;

  /// Released with the object, and with the process.
  using Lock = FileDescriptor;
  /// EBUSY: another apply, detach or prepare is at work.
  Result<Lock> lock() const;

 private:
  std::filesystem::path file(const PciAddress& address, const char* suffix) const;
  std::vector<PciAddress> with_suffix(const char* suffix) const;
  Result<void> make_folder() const;

  std::filesystem::path folder_;
};

}  // namespace hookline::loader
