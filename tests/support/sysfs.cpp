// SPDX-License-Identifier: Apache-2.0
#include "tests/support/sysfs.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <thread>

#include <fmt/format.h>

namespace hookline::sysfs {
namespace {

std::string device_path(const std::string& address) { return "/sys/bus/pci/devices/" + address; }

std::vector<std::string> words_of(const char* variable) {
  const char* value = std::getenv(variable);
  std::istringstream text(value == nullptr ? "" : value);
  std::vector<std::string> words;
  for (std::string word; text >> word;) words.push_back(word);
  return words;
}

}  // namespace

std::string driver_of(const std::string& address) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(device_path(address) + "/driver", error);
  return error ? "" : target.filename().string();
}

bool exists(const std::string& address) { return std::filesystem::exists(device_path(address)); }

Result<void> unbind(const std::string& address) {
  if (driver_of(address).empty()) return {};
  return write(device_path(address) + "/driver/unbind", address);
}

Result<void> bind(const std::string& address, const std::string& driver) {
  if (auto done = unbind(address); !done) return done;
  if (auto done = write(device_path(address) + "/driver_override", driver); !done) return done;
  if (auto done = write("/sys/bus/pci/drivers_probe", address); !done) return done;
  if (driver_of(address) != driver)
    return fail(ENODEV, fmt::format("{}: driver {} did not take it", address, driver));
  return {};
}

Result<void> release(const std::string& address) {
  if (auto done = unbind(address); !done) return done;
  return write(device_path(address) + "/driver_override", "\n");
}

Result<std::string> read(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  char buffer[4096];
  const ssize_t got = fd < 0 ? -1 : ::read(fd, buffer, sizeof buffer);
  const int code = errno;
  if (fd >= 0) ::close(fd);
  if (got < 0) return fail(code, fmt::format("{}: {}", path, std::strerror(code)));
  std::string text(buffer, static_cast<size_t>(got));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

Result<void> write(const std::string& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const ssize_t done = fd < 0 ? -1 : ::write(fd, text.data(), text.size());
  const int code = errno;
  if (fd >= 0) ::close(fd);
  if (done < 0) return fail(code, fmt::format("{}: {}", path, std::strerror(code)));
  return {};
}

std::vector<std::string> test_vfs() { return words_of("HOOKLINE_VM_VFS"); }
std::vector<std::string> test_pfs() { return words_of("HOOKLINE_VM_PFS"); }

unsigned slowness() {
  const char* text = std::getenv("HOOKLINE_SLOWNESS");
  return text == nullptr ? 1 : std::max(1, std::atoi(text));
}

bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit * slowness();
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace hookline::sysfs
