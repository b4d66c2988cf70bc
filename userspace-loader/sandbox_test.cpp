// SPDX-License-Identifier: Apache-2.0
#include "sandbox.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <linux/vfio_pci_hooks.h>

namespace hookline::loader {
namespace {

/// Runs `check` in a child of its own; its answer, or -1 if the child ended otherwise.
int in_child(const std::function<int()>& check) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(check());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct Call {
  const char* name;
  int (*make)();  ///< below 0: it failed
};

class ForbiddenCallTest : public testing::TestWithParam<Call> {};

// It must fail inside and for that reason: outside it gives something else.
TEST_P(ForbiddenCallTest, RL3_IsRefusedInAWorker) {
  EXPECT_EQ(in_child([] {
              if (!restrict_system_calls()) return 100;
              errno = 0;
              return GetParam().make() < 0 ? errno : 0;
            }),
            EPERM);
}

INSTANTIATE_TEST_SUITE_P(
    All, ForbiddenCallTest,
    testing::Values(Call{"Socket", [] { return ::socket(AF_UNIX, SOCK_STREAM, 0); }},
                    Call{"Fork", [] { return static_cast<int>(::fork()); }},
                    Call{"Exec", [] { return ::execl("/bin/true", "true", nullptr); }},
                    Call{"WriteAFile", [] { return ::open("/dev/null", O_WRONLY); }},
                    Call{"CreateAFile", [] { return ::open("/tmp/hookline-sandbox-test", O_RDONLY | O_CREAT, 0600); }},
                    Call{"KillOthers", [] { return ::kill(::getppid(), 0); }},
                    Call{"Ptrace", [] { return static_cast<int>(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr)); }},
                    Call{"IoctlOfATerminal", [] { return ::ioctl(0, TIOCSTI, ""); }},
                    Call{"BecomeRoot", [] { return ::setuid(0); }}),
    [](const auto& test) { return test.param.name; });

TEST(SandboxTest, WhatAWorkerNeedsStillWorks) {
  EXPECT_EQ(in_child([] {
              if (!restrict_system_calls()) return 1;
              std::ifstream file("/proc/self/stat");
              std::string text;
              if (!std::getline(file, text)) return 2;
              void* memory = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              if (memory == MAP_FAILED) return 3;
              int seen = 0;
              std::thread([&] { seen = 1; }).join();
              if (!seen) return 4;
              // Reaches the driver behind the descriptor, which is none of ours.
              errno = 0;
              if (::ioctl(0, VFIO_PCI_HOOKS_NEXT, nullptr) == 0 || errno == EPERM) return 5;
              return 0;
            }),
            0);
}

TEST(SandboxTest, RL3_NoRootAndNoWayBack) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to have something to give up";
  EXPECT_EQ(in_child([] {
              if (!enter_sandbox()) return 1;
              if (::getuid() == 0 || ::geteuid() == 0 || ::getgid() == 0) return 2;
              std::ifstream status("/proc/self/status");
              for (std::string line; std::getline(status, line);) {
                const bool capabilities = line.rfind("CapInh", 0) == 0 || line.rfind("CapPrm", 0) == 0 ||
                                          line.rfind("CapEff", 0) == 0 || line.rfind("CapBnd", 0) == 0 ||
                                          line.rfind("CapAmb", 0) == 0;
                if (capabilities && line.find_first_of("123456789abcdef", 8) != std::string::npos) return 3;
                if (line.rfind("NoNewPrivs:\t0", 0) == 0) return 4;
                if (line.rfind("Groups:", 0) == 0 && line.find_first_of("0123456789", 7) != std::string::npos) return 5;
              }
              return 0;
            }),
            0);
}

}  // namespace
}  // namespace hookline::loader
