// SPDX-License-Identifier: Apache-2.0
#include "sandbox.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include <fmt/core.h>
#include <linux/vfio_pci_hooks.h>

namespace hookline::loader {
namespace {

constexpr const char* kUser = "hookline";
constexpr const char* kFallbackUser = "nobody";

tl::unexpected<Error> failed(const char* what) {
  const int code = errno;
  return fail(code, fmt::format("dropping privileges: {}: {}", what, std::strerror(code)));
}

// What glibc, the dynamic linker, a C++ runtime, logging and the hook channel use. No process, socket or file is made,
// nothing is written but to descriptors that are there.
constexpr int kAllowed[] = {
    // memory
    SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mprotect), SCMP_SYS(mremap), SCMP_SYS(madvise),
    // reading files and descriptors that are there
    SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(lseek),
    SCMP_SYS(fstat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(access),
    SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getcwd),
    SCMP_SYS(getdents64), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(sendto), SCMP_SYS(recvfrom),
    // time
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    // threads and signals of its own
    SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(membarrier), SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity), SCMP_SYS(set_tid_address), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack), SCMP_SYS(restart_syscall), SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    // the rest
    SCMP_SYS(getrandom), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
    SCMP_SYS(getegid)};

struct FilterFree {
  void operator()(void* filter) const { seccomp_release(filter); }
};

Result<void> drop_capabilities() {
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability)
    // EINVAL: one that an older kernel does not have.
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EINVAL) return failed("bounding set");
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return failed("ambient capabilities");
  return {};
}

Result<void> become_user() {
  const passwd* user = ::getpwnam(kUser);
  if (!user) user = ::getpwnam(kFallbackUser);
  if (!user) return fail(ENOENT, fmt::format("dropping privileges: there is neither a user {} nor {}", kUser, kFallbackUser));
  if (::setgroups(0, nullptr) < 0) return failed("groups");
  if (::setresgid(user->pw_gid, user->pw_gid, user->pw_gid) < 0) return failed("group");
  // Clears the permitted and effective capabilities, too.
  if (::setresuid(user->pw_uid, user->pw_uid, user->pw_uid) < 0) return failed("user");
  return {};
}

Result<void> limit_resources() {
  const rlimit no_core{0, 0}, descriptors{64, 64};
  // A core would hold what the guest has in memory.
  if (::setrlimit(RLIMIT_CORE, &no_core) < 0) return failed("core size");
  if (::setrlimit(RLIMIT_NOFILE, &descriptors) < 0) return failed("number of descriptors");
  return {};
}

}  // namespace

Result<void> restrict_system_calls() {
  const std::unique_ptr<void, FilterFree> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  if (!filter) return fail(ENOMEM, "dropping privileges: no memory for the system-call filter");
  int error = 0;
  const auto allow = [&](int call, auto... conditions) {
    const int ret = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, sizeof...(conditions), conditions...);
    if (ret < 0 && error == 0) error = -ret;
  };
  for (const int call : kAllowed) allow(call);
  // The module's own calls: no terminal, no socket, no other driver.
  allow(SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00u, VFIO_PCI_HOOKS_IOC_TYPE << 8));
  constexpr auto kWrites = static_cast<scmp_datum_t>(O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND);
  allow(SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, kWrites, 0));
  allow(SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, kWrites, 0));
  allow(SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_GETFL));
  allow(SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_GETFD));
  allow(SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_SETFD));
  // abort() and assertions; nobody else's process.
  allow(SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(::getpid())));
  allow(SCMP_SYS(prlimit64), SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0));
  allow(SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
  if (error != 0) return fail(error, fmt::format("dropping privileges: system-call filter: {}", std::strerror(error)));
  // Its flags lie in memory, where a filter cannot look; with this errno glibc falls back to clone.
  error = -seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  if (error == 0) error = -seccomp_load(filter.get());
  if (error != 0) return fail(error, fmt::format("dropping privileges: system-call filter: {}", std::strerror(error)));
  return {};
}

Result<void> enter_sandbox() {
  if (auto ok = limit_resources(); !ok) return ok;
  if (::geteuid() == 0) {
    if (auto ok = drop_capabilities(); !ok) return ok;
    if (auto ok = become_user(); !ok) return ok;
  }
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return failed("dumpable");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return failed("no new privileges");
  return restrict_system_calls();
}

}  // namespace hookline::loader
