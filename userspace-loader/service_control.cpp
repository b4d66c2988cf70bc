// SPDX-License-Identifier: Apache-2.0
#include "service_control.hpp"

#include <poll.h>
#include <signal.h>
// Older glibc forgets to say so itself.
extern "C" {
#include <sys/pidfd.h>
}
#include <sys/wait.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "child_process.hpp"
#include "files.hpp"

namespace hookline::loader {
namespace {

using namespace std::chrono_literals;

// Generous: an emulated machine under load loads plugins in seconds.
constexpr auto kReadyLimit = 30s;
constexpr int kTermLimitMs = 5000, kKillLimitMs = 5000;

bool systemd_has_unit(const PciAddress& address) {
  if (sd_booted() <= 0) return false;
  const auto status = run_and_wait({"systemctl", "cat", ServiceControl::unit(address)}, true);
  return status && *status == 0;
}

/// The last lines of a log, indented; empty if there is none.
std::string tail(const std::filesystem::path& file) {
  const auto text = read_line(file);
  if (!text || text->empty()) return "";
  size_t start = text->size();
  for (int lines = 0; lines < 5 && start != std::string::npos && start > 0; ++lines) start = text->rfind('\n', start - 1);
  return fmt::format("; its log ends with\n{}", text->substr(start == std::string::npos ? 0 : start));
}

/// Ends a process that may have ended already and whose number may have been given away.
Result<void> end(const Process& process, const char* what) {
  if (!is_alive(process)) return {};
  const FileDescriptor pidfd(::pidfd_open(process.pid, 0));
  if (pidfd.get() < 0 || !is_alive(process)) return {};
  pollfd ended{pidfd.get(), POLLIN, 0};
  ::pidfd_send_signal(pidfd.get(), SIGTERM, nullptr, 0);
  if (::poll(&ended, 1, kTermLimitMs) > 0) return {};
  ::pidfd_send_signal(pidfd.get(), SIGKILL, nullptr, 0);
  if (::poll(&ended, 1, kKillLimitMs) > 0) return {};
  return fail(ETIMEDOUT, fmt::format("the {} (process {}) does not end, even killed: it hangs in the kernel", what, process.pid));
}

}  // namespace

std::string ServiceControl::unit(const PciAddress& address) { return fmt::format("hookline@{}.service", to_string(address)); }

bool ServiceControl::serves(const PciAddress& address) const {
  const auto service = state_.service(address);
  return service && (is_alive(service->supervisor) || is_alive(service->worker));
}

bool ServiceControl::supervises(const PciAddress& address) const {
  const auto service = state_.service(address);
  return service && is_alive(service->supervisor);
}

Result<void> ServiceControl::start(const PciAddress& address) const {
  if (systemd_has_unit(address)) {
    const auto status = run_and_wait({"systemctl", "start", unit(address)});
    if (!status) return fail(status.error());
    if (*status != 0)
      return fail(EIO, fmt::format("{} did not start: `journalctl -u {}` says why", unit(address), unit(address)));
    return wait_until_ready(address, 0);
  }
  std::vector<std::string> arguments{"/proc/self/exe"};
  if (root_ != "/") arguments.insert(arguments.end(), {"--root", root_});
  arguments.insert(arguments.end(), {"run", to_string(address)});
  const auto pid = spawn(arguments, {.output = state_.log_file(address).string(), .new_session = true});
  if (!pid) return fail(pid.error());
  auto ok = wait_until_ready(address, *pid);
  if (!ok) {
    if (::waitpid(*pid, nullptr, WNOHANG) == 0) (void)end(process_of(*pid), "supervisor");
    (void)stop(address);
  }
  return ok;
}

Result<void> ServiceControl::wait_until_ready(const PciAddress& address, pid_t child) const {
  const auto deadline = std::chrono::steady_clock::now() + kReadyLimit;
  while (std::chrono::steady_clock::now() < deadline) {
    const auto service = state_.service(address);
    if (service && service->ready && is_alive(service->supervisor) && is_alive(service->worker)) return {};
    int status = 0;
    if (child > 0 && ::waitpid(child, &status, WNOHANG) == child)
      return fail(EIO, fmt::format("the supervisor of {} has ended ({}){}", to_string(address), describe_end(status),
                                   tail(state_.log_file(address))));
    std::this_thread::sleep_for(20ms);
  }
  return fail(ETIMEDOUT, fmt::format("the worker of {} did not get ready within {} s{}", to_string(address),
                                     std::chrono::seconds(kReadyLimit).count(), tail(state_.log_file(address))));
}

Result<void> ServiceControl::stop(const PciAddress& address) const {
  if (systemd_has_unit(address)) {
    const auto status = run_and_wait({"systemctl", "stop", unit(address)});
    if (!status) return fail(status.error());
  }
  const auto service = state_.service(address);
  if (!service) return {};
  // The supervisor first: it would start another worker.
  if (auto ok = end(service->supervisor, "supervisor"); !ok) return ok;
  const auto last = state_.service(address).value_or(*service);
  if (auto ok = end(last.worker, "worker"); !ok) return ok;
  state_.forget_service(address);
  return {};
}

}  // namespace hookline::loader
