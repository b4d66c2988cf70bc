// SPDX-License-Identifier: Apache-2.0
//
// A function under vfio-pci-hooks with a worker behind it: the library's own worker loop and one small
// plugin, which answers reads of one register itself and passes everything else on.
//
// One thread. Errors: std::runtime_error. The worker is forked by the constructor: open no device of a VMM's
// before, it would stay open in the worker.
//
//     ServedDevice served(address, chain_for(TrappedPages::first));
//     auto device = vfio::Device::open(*container, address);
//     device->read<uint32_t>(0, kAnsweredRegister);      // kAnswer
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <hookline/chain.hpp>
#include <hookline/hook_channel.hpp>

namespace hookline::bench {

inline constexpr uint32_t kAnsweredRegister = 0x0, kPassedRegister = 0x8;  // CTRL and STATUS of an 82576 VF
inline constexpr uint32_t kAnswer = 0x600dcafe;

/// Of BAR 0.
enum class TrappedPages { none, first, first_two };
std::span<const hookline_range> ranges_of(TrappedPages pages);
Chain chain_for(TrappedPages pages);

vfio_pci_hooks_address parse_address(const std::string& address);

/// Defined and bound for as long as the object lives; nobody serves it.
class DefinedDevice {
 public:
  /// `handlers` may name in-kernel handlers.
  DefinedDevice(const std::string& address, Chain chain,
                std::vector<std::string> handlers = {VFIO_PCI_HOOKS_CHANNEL_NAME});
  ~DefinedDevice();
  DefinedDevice(const DefinedDevice&) = delete;
  DefinedDevice& operator=(const DefinedDevice&) = delete;

  vfio_pci_hooks_status status() const;
  const std::string& address() const { return address_; }
  const Chain& chain() const { return chain_; }
  const ControlDevice& control() const { return control_; }

 private:
  std::string address_;
  ControlDevice control_;
  Chain chain_;
};

/// What serves the device.
enum class Worker {
  waits,      ///< the library's loop, asleep until a request comes
  polls,      ///< the same, awake between requests (busy_poll)
  transport,  ///< gives and takes a state of the chain's size without looking at a byte: what is left is its
              ///< way
};

class ServedDevice {
 public:
  ServedDevice(const std::string& address, Chain chain, Worker worker = Worker::waits,
               std::vector<std::string> handlers = {VFIO_PCI_HOOKS_CHANNEL_NAME});
  ~ServedDevice();
  ServedDevice(const ServedDevice&) = delete;
  ServedDevice& operator=(const ServedDevice&) = delete;

  pid_t worker() const { return pid_; }
  /// Throws unless the worker answered exactly so many accesses and none went past it.
  void expect_accesses(uint64_t count) const;

 private:
  DefinedDevice defined_;
  pid_t pid_;
};

}  // namespace hookline::bench
