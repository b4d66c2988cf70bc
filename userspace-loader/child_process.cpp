// SPDX-License-Identifier: Apache-2.0
#include "child_process.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fmt/core.h>
#include <hookline/hook_channel.hpp>

extern char** environ;

namespace hookline::loader {
namespace {

class SpawnSetup {
 public:
  SpawnSetup() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

}  // namespace

Result<pid_t> spawn(const std::vector<std::string>& arguments, const SpawnOptions& options) {
  SpawnSetup setup;
  posix_spawn_file_actions_addopen(&setup.actions, 0, "/dev/null", O_RDONLY, 0);
  if (!options.output.empty()) {
    posix_spawn_file_actions_addopen(&setup.actions, 1, options.output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&setup.actions, 1, 2);
  }
  // Moved out of the way first: what one of them becomes may be what another one is.
  std::vector<FileDescriptor> sources;
  int first_closed = 3;
  for (const auto& [ours, theirs] : options.descriptors) {
    sources.emplace_back(::fcntl(ours, F_DUPFD_CLOEXEC, 64));
    posix_spawn_file_actions_adddup2(&setup.actions, sources.back().get(), theirs);
    first_closed = std::max(first_closed, theirs + 1);
  }
  posix_spawn_file_actions_addclosefrom_np(&setup.actions, first_closed);

  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&setup.attributes, &none);
  posix_spawnattr_setsigdefault(&setup.attributes, &all);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (options.new_session) flags |= POSIX_SPAWN_SETSID;
  posix_spawnattr_setflags(&setup.attributes, flags);

  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, argv[0], &setup.actions, &setup.attributes, argv.data(), environ);
  if (error != 0) return fail(error, fmt::format("cannot start {}: {}", arguments.front(), std::strerror(error)));
  return pid;
}

Result<int> run_and_wait(const std::vector<std::string>& arguments, bool quiet) {
  SpawnOptions options;
  if (quiet)
    options.output = "/dev/null";
  else
    options.descriptors = {{2, 1}};
  const Result<pid_t> pid = spawn(arguments, options);
  if (!pid) return fail(pid.error());
  int status = 0;
  while (::waitpid(*pid, &status, 0) < 0)
    if (errno != EINTR) return fail(errno, fmt::format("waiting for {}: {}", arguments.front(), std::strerror(errno)));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string describe_end(int wait_status) {
  if (WIFEXITED(wait_status)) return fmt::format("exit status {}", WEXITSTATUS(wait_status));
  return fmt::format("signal {} ({})", WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
}

}  // namespace hookline::loader
