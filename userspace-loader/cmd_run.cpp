// SPDX-License-Identifier: Apache-2.0
//
// hookline run DEVICE: the supervisor. hookline worker DEVICE: what it starts; not for people.
#include <fcntl.h>

#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "command.hpp"
#include "device_log.hpp"
#include "run_state.hpp"
#include "supervisor.hpp"
#include "worker.hpp"

namespace hookline::loader {
namespace {

/// What apply wrote down for the device; says what is wrong if there is nothing.
std::optional<DeviceRecord> applied(const std::string& text, const RunState& state, int& code) {
  const auto address = parse_pci_address(text);
  if (!address) {
    fmt::print(stderr, "hookline: \"{}\" is no PCI address such as 0000:01:10.0\n", text);
    code = kUsage;
    return std::nullopt;
  }
  auto record = state.device(*address);
  code = kNo;
  if (!record)
    fmt::print(stderr, "hookline: {}\n", record.error().text);
  else if (!*record)
    fmt::print(stderr, "hookline: {} has not been set up: `hookline apply FILE` does\n", to_string(*address));
  else
    return std::move(*record);
  return std::nullopt;
}

int supervise(const std::string& device, const Globals& globals) {
  const RunState state(globals.root);
  const Sysfs sysfs(globals.root);
  int code = kNo;
  const auto record = applied(device, state, code);
  if (!record) return code;
  auto log = device_log(to_string(record->device.address), globals.verbosity);
  return Supervisor(*record, globals.root, globals.verbosity, state, sysfs, std::move(log)).run();
}

int work(const std::string& device, const Globals& globals) {
  // Started by hand there is no channel, and the numbers belong to something else.
  if (::fcntl(kChannelFd, F_GETFD) < 0 || ::fcntl(kSupervisorFd, F_GETFD) < 0) {
    fmt::print(stderr, "hookline: a worker is started by `hookline run {}`\n", device);
    return kUsage;
  }
  const RunState state(globals.root);
  int code = kNo;
  const auto record = applied(device, state, code);
  if (!record) return kWorkerUnable;
  return run_worker(record->device, Channel(FileDescriptor(kChannelFd)), SupervisorPort(FileDescriptor(kSupervisorFd)),
                    device_log(to_string(record->device.address), globals.verbosity));
}

void add(CLI::App& app, CommandLine& line, const char* name, const char* help, const char* group,
         int (*run)(const std::string&, const Globals&)) {
  auto device = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(name, help)->group(group);
  command->add_option("DEVICE", *device, "PCI address, e.g. 0000:01:10.0")->required();
  command->callback([device, run, &line] { line.run = [device, run](const Globals& globals) { return run(*device, globals); }; });
}

}  // namespace

void add_run(CLI::App& app, CommandLine& line) {
  add(app, line, "run", "Supervise a device: keep a worker serving it (a service starts this)", "Subcommands", supervise);
  add(app, line, "worker", "Serve a device for its supervisor", "", work);
}

}  // namespace hookline::loader
