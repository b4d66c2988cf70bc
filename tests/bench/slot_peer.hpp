// SPDX-License-Identifier: Apache-2.0
//
// A slot that a worker watches, without a kernel in it: a process that answers with the library's own code and
// one small plugin, and this one, which asks as a thread of the VMM does once it is in the kernel. It shows on
// a processor what a polling worker costs beside the system call that an access is.
//
// One thread. Errors: std::system_error, std::runtime_error.
//
//     SlotPeer worker;
//     pin(worker.pid(), kSecondCpu);
//     worker.read();  // of a register
#pragma once

#include <sys/types.h>

#include <linux/vfio_pci_hooks.h>

namespace hookline::bench {

class SlotPeer {
 public:
  SlotPeer();
  ~SlotPeer();
  SlotPeer(const SlotPeer&) = delete;
  SlotPeer& operator=(const SlotPeer&) = delete;

  pid_t pid() const { return pid_; }
  /// Throws if the worker's answer is not the plugin's.
  void read();

 private:
  vfio_pci_hooks_slot* slot_;  // shared with the process
  pid_t pid_;
};

}  // namespace hookline::bench
