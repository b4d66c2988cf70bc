// SPDX-License-Identifier: Apache-2.0
//
// PCI functions as tests prepare them: which driver a function has, and giving it another with driver_override.
//
// Any thread. Errors: Result with the file that refused. Needs root.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <hookline/result.hpp>

namespace hookline::sysfs {

/// "vfio-pci", or "" for a function without a driver.
std::string driver_of(const std::string& address);
bool exists(const std::string& address);
Result<void> unbind(const std::string& address);
/// Unbinds the function from what it has and gives it this driver.
Result<void> bind(const std::string& address, const std::string& driver);
/// Takes the driver and the override away.
Result<void> release(const std::string& address);

Result<std::string> read(const std::string& path);
Result<void> write(const std::string& path, std::string_view text);
/// The functions that HOOKLINE_VM_VFS and HOOKLINE_VM_PFS of the test machine name, in order.
std::vector<std::string> test_vfs();
std::vector<std::string> test_pfs();

/// How much longer everything may take on this kernel: HOOKLINE_SLOWNESS, or 1.
unsigned slowness();
/// True as soon as the condition holds, false if it does not within the time (times slowness()).
bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds limit);

}  // namespace hookline::sysfs
