// SPDX-License-Identifier: Apache-2.0
//
// The worker's loop: the requests of one session, answered by one open chain.
//
// Thread rule: one thread; plugins run on it. Errors: what fails a request is its answer and a line in the
// log; what ends the session is serve()'s result.
//
//     switch (*serve(session, device, {.log = log})) {
//       case ServeEnd::closed: ...  // the next open is a new session
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include <linux/vfio_pci_hooks.h>

#include <hookline/device_state.hpp>
#include <hookline/hook_channel.hpp>
#include <hookline/open_device.hpp>
#include <hookline/result.hpp>

namespace hookline {

/// Answers requests in slots. No descriptor takes part: it serves slots that a test has filled just as well.
class RequestServer {
 public:
  /// `device` and `store` outlive the object; `stream` is the session's buffer. No store: the values are the
  /// open device's.
  RequestServer(OpenDevice& device, std::span<std::byte> stream, PluginLog log = {},
                ParameterStore* store = nullptr);

  /// Gives the plugins the device's parameters as they are. At the beginning of a stream and on events it is
  /// done anyway.
  Result<void> refresh_parameters();

  /// Fills the slot's answer half. One to LOAD says how many bytes bring no verdict, so that the VMM need not
  /// wait for them.
  void answer(vfio_pci_hooks_slot& slot) noexcept;
  void event(const vfio_pci_hooks_next& next) noexcept;

  enum class Watched {
    answered,   ///< a request came, and its answer is where the kernel takes it
    hand_over,  ///< a request came, and its answer is in the slot: hand it over by NEXT
    call,       ///< call NEXT: it knows something
    idle,       ///< nothing came
  };
  /// Slot 0, after NEXT said NEXT_WATCHING: awake until a request comes or `awake` is over, in steps of some
  /// microseconds.
  Watched watch(vfio_pci_hooks_slot& slot, std::chrono::microseconds awake) noexcept;

 private:
  struct Reply {
    int answer = VFIO_PCI_HOOKS_HANDLED;
    size_t length = 0;
    bool end = false;
    BulkBytes sizes{};
  };
  Result<Reply> dispatch(vfio_pci_hooks_slot& slot);
  Result<Reply> access(vfio_pci_hooks_slot& slot, uint32_t op);
  Result<Reply> ioctl(vfio_pci_hooks_slot& slot, uint32_t op);
  Result<Reply> save(const vfio_pci_hooks_slot& slot);
  Result<Reply> load(const vfio_pci_hooks_slot& slot);
  Result<std::span<std::byte>> slice(uint64_t offset, uint64_t length) const;

  OpenDevice& device_;
  std::span<std::byte> stream_;
  PluginLog log_;
  ParameterStore* store_;
  std::optional<DeviceStateSaver> saver_;
  std::unique_ptr<DeviceStateLoader> loader_;
};

enum class ServeEnd {
  closed,   ///< the VMM closed the device: wait for the next open
  revoked,  ///< this worker was too late, or another took over; the kernel took the session back
  gone,     ///< the function left the driver
  stopped,  ///< should_stop said so
};

struct ServeOptions {
  PluginLog log{};
  /// Asked between requests, on signals and every `idle_ms`.
  std::function<bool()> should_stop{};
  int idle_ms = -1;  ///< below 0: no such beat
  /// So long it watches for the next access before it sleeps, on a CPU that it needs for itself. 0: it sleeps
  /// at once, as it does with a module that is older than watching.
  std::chrono::microseconds busy_poll{0};
};

/// Answers requests until the session ends. An Error is none of the ends: the kernel said something
/// unexpected.
Result<ServeEnd> serve(Session& session, OpenDevice& device, const ServeOptions& options = {});

}  // namespace hookline
