// SPDX-License-Identifier: Apache-2.0
//
// hookline save DEVICE, hookline restore DEVICE: a device's state to a pipe or a file and back, without a VMM.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "command.hpp"
#include "linux_host.hpp"
#include "progress.hpp"
#include "vfio_client.hpp"

namespace hookline::loader {
namespace {

struct TransferCommand {
  std::string device;
  std::string file = "-";
  bool hold = false;
};

int refuse(int code, const std::string& text) {
  fmt::print(stderr, "hookline: {}\n", text);
  return code;
}

/// Opens the device, or says why not.
std::unique_ptr<VfioClient> open_device(const std::string& text, const Globals& globals, int& code) {
  const auto address = parse_pci_address(text);
  if (!address) {
    code = refuse(kUsage, fmt::format("\"{}\" is no PCI address such as 0000:01:10.0", text));
    return nullptr;
  }
  code = kNo;
  const LinuxHost host(globals.root);
  const auto function = host.sysfs().function(*address);
  if (!function) {
    refuse(kNo, function.error().text);
    return nullptr;
  }
  if (const auto holders = host.holders(*function); !holders.empty()) {
    refuse(kNo, fmt::format("{} is in use by {}: its VMM migrates it", to_string(*address), fmt::join(holders, ", ")));
    return nullptr;
  }
  auto device = VfioClient::open(globals.root, *function);
  if (!device) {
    refuse(kNo, device.error().text);
    return nullptr;
  }
  return std::move(*device);
}

/// Moves bytes until the source ends. The error says which side failed.
Result<void> copy(int from, const char* from_name, int to, const char* to_name, Progress& progress) {
  std::vector<char> buffer(size_t{1} << 20);
  for (;;) {
    const ssize_t n = ::read(from, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errno, fmt::format("reading {}: {}", from_name, std::strerror(errno)));
    if (n == 0) return {};
    for (ssize_t done = 0; done < n;) {
      const ssize_t m = ::write(to, buffer.data() + done, static_cast<size_t>(n - done));
      if (m < 0 && errno == EINTR) continue;
      if (m < 0) return fail(errno, fmt::format("writing {}: {}", to_name, std::strerror(errno)));
      done += m;
    }
    progress.add(static_cast<uint64_t>(n));
  }
}

constexpr const char* kLogHint = "the log of the device's supervisor says why";

Result<void> save_to(VfioClient& device, int out, Progress& progress) {
  progress.stage("stopping");
  if (const auto ok = device.set_state(MigrationState::stop); !ok) return fail(ok.error());
  const auto data = device.set_state(MigrationState::stop_copy);
  if (!data) return fail(data.error());
  progress.stage("saving");
  auto copied = copy(data->get(), "the device's state", out, "the output", progress);
  const auto stopped = device.set_state(MigrationState::stop);
  if (!copied) return copied;
  return stopped ? Result<void>() : fail(stopped.error());
}

int save(const TransferCommand& command, const Globals& globals) {
  if (command.file == "-" && ::isatty(STDOUT_FILENO))
    return refuse(kUsage, "not writing a device's state to a terminal: use a pipe or -o FILE");
  ::signal(SIGPIPE, SIG_IGN);
  int code = kNo;
  const auto device = open_device(command.device, globals, code);
  if (!device) return code;

  FileDescriptor file;
  if (command.file != "-") {
    file = FileDescriptor(::open(command.file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (file.get() < 0) return refuse(kNo, fmt::format("cannot create {}: {}", command.file, std::strerror(errno)));
  }
  Progress progress(STDERR_FILENO, command.device, device->state_size().value_or(0));
  const auto saved = save_to(*device, command.file == "-" ? STDOUT_FILENO : file.get(), progress);
  progress.finish();
  if (!saved) {
    // Half a state looks like one.
    if (command.file != "-") ::unlink(command.file.c_str());
    return refuse(kNo, fmt::format("{}: not saved: {}; {}", command.device, saved.error().text, kLogHint));
  }
  fmt::print(stderr, "{}: saved {} in {}\n", command.device, size_text(progress.bytes()), time_text(progress.elapsed()));
  return kYes;
}

Result<void> restore_from(VfioClient& device, int in, Progress& progress) {
  const auto data = device.set_state(MigrationState::resuming);
  if (!data) return fail(data.error());
  progress.stage("restoring");
  if (auto ok = copy(in, "the input", data->get(), "the device's state", progress); !ok) return ok;
  progress.stage("starting");
  for (const MigrationState state : {MigrationState::stop, MigrationState::running})
    if (const auto ok = device.set_state(state); !ok) return fail(ok.error());
  return {};
}

/// Until SIGINT or SIGTERM.
void hold() {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  int signal = 0;
  ::sigwait(&ends, &signal);
}

int restore(const TransferCommand& command, const Globals& globals) {
  if (command.file == "-" && ::isatty(STDIN_FILENO))
    return refuse(kUsage, "a device's state is not typed in: use a pipe or -i FILE");
  FileDescriptor file;
  if (command.file != "-") {
    file = FileDescriptor(::open(command.file.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return refuse(kNo, fmt::format("cannot open {}: {}", command.file, std::strerror(errno)));
  }
  int code = kNo;
  const auto device = open_device(command.device, globals, code);
  if (!device) return code;
  Progress progress(STDERR_FILENO, command.device, 0);
  const auto restored = restore_from(*device, command.file == "-" ? STDIN_FILENO : file.get(), progress);
  progress.finish();
  if (!restored)
    return refuse(kNo, fmt::format("{}: not restored: {}; {}", command.device, restored.error().text, kLogHint));
  fmt::print(stderr, "{}: took {} and runs, after {}\n", command.device, size_text(progress.bytes()), time_text(progress.elapsed()));
  if (command.hold) {
    fmt::print(stderr, "{}: held open; Ctrl-C closes it, which resets it\n", command.device);
    hold();
  }
  return kYes;
}

constexpr const char* kMeaning =
    "VFIO resets a device when it is opened and again when it is closed. So what is saved is the device after a reset,\n"
    "with what a reset leaves (a graphics card's memory, for instance), and what is restored ends when it is closed\n"
    "(--hold keeps it). It shows that a state goes from one device to another, and how large and how fast; the device of a\n"
    "running guest is moved by its VMM.\n"
    "Exit status: 0 done, 1 failed, 2 usage.";

}  // namespace

void add_save(CLI::App& app, CommandLine& line) {
  auto command = std::make_shared<TransferCommand>();
  CLI::App* save_app = app.add_subcommand("save", "Write the state of a device that no VMM has to a pipe or file");
  save_app->add_option("DEVICE", command->device, "PCI address")->required()->type_name("");
  save_app->add_option("-o,--output", command->file, "Write to FILE, - is stdout")->type_name("FILE")->capture_default_str();
  save_app->footer(kMeaning);
  save_app->callback([command, &line] { line.run = [command](const Globals& globals) { return save(*command, globals); }; });
}

void add_restore(CLI::App& app, CommandLine& line) {
  auto command = std::make_shared<TransferCommand>();
  CLI::App* restore_app = app.add_subcommand("restore", "Load a state into a device that no VMM has");
  restore_app->add_option("DEVICE", command->device, "PCI address")->required()->type_name("");
  restore_app->add_option("-i,--input", command->file, "Read FILE, - is stdin")->type_name("FILE")->capture_default_str();
  restore_app->add_flag("--hold", command->hold, "Keep the device open, running, until SIGINT or SIGTERM");
  restore_app->footer(kMeaning);
  restore_app->callback([command, &line] { line.run = [command](const Globals& globals) { return restore(*command, globals); }; });
}

}  // namespace hookline::loader
