// SPDX-License-Identifier: Apache-2.0
//
// Starts and stops the supervisor of a device: as the systemd service hookline@ADDRESS where systemd runs and knows it,
// else as a process of its own that logs to /run/hookline/ADDRESS.log.
//
// One thread. Errors: Result; ETIMEDOUT where the worker does not get ready, with the last lines of its log.
//
//     ServiceControl services(root, state);
//     if (auto ok = services.start(address); !ok) return ok;   // its worker waits for the device to be opened
#pragma once

#include <string>

#include "hookline/result.hpp"
#include "pci_address.hpp"
#include "run_state.hpp"

namespace hookline::loader {

class ServiceControl {
 public:
  ServiceControl(std::string root, const RunState& state) : root_(std::move(root)), state_(state) {}

  /// Supervisor or a worker it has left behind.
  bool serves(const PciAddress& address) const;
  bool supervises(const PciAddress& address) const;
  /// Returns when the worker is ready. Leaves nothing running when it fails.
  Result<void> start(const PciAddress& address) const;
  /// Returns when both are gone.
  Result<void> stop(const PciAddress& address) const;

  static std::string unit(const PciAddress& address);

 private:
  Result<void> wait_until_ready(const PciAddress& address, pid_t child) const;

  std::string root_;
  const RunState& state_;
};

}  // namespace hookline::loader
