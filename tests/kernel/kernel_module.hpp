// SPDX-License-Identifier: Apache-2.0
//
// A module beside vfio-pci-hooks.ko, loaded as long as the object lives.
//
// Thread rule: one thread. Errors: std::system_error if it cannot be loaded, a GoogleTest failure if it cannot be unloaded.
//
//     const KernelModule sample("samples/vfio_pci_hooks_sample.ko", "vfio_pci_hooks_sample");
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <system_error>

#include "tests/support/vfio_device.hpp"

namespace hookline::kernel_test {

class KernelModule {
 public:
  /// `file`: from the folder of the modules that the tests run with.
  KernelModule(const std::string& file, std::string name, const std::string& parameters = "") : name_(std::move(name)) {
    const char* modules = std::getenv("HOOKLINE_MODULES");
    if (!modules) throw std::runtime_error("HOOKLINE_MODULES does not name the folder of the modules");
    const std::string path = std::string(modules) + "/" + file;
    const vfio::Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!descriptor || ::syscall(SYS_finit_module, descriptor.get(), parameters.c_str(), 0) != 0)
      throw std::system_error(errno, std::generic_category(), path);
  }
  ~KernelModule() { EXPECT_EQ(::syscall(SYS_delete_module, name_.c_str(), O_NONBLOCK), 0) << name_; }
  KernelModule(const KernelModule&) = delete;
  KernelModule& operator=(const KernelModule&) = delete;

 private:
  std::string name_;
};

}  // namespace hookline::kernel_test
