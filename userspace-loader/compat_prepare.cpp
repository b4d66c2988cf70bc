// SPDX-License-Identifier: Apache-2.0
#include "compat_prepare.hpp"

#include <cerrno>
#include <csignal>

#include <fmt/core.h>

namespace hookline::loader {
namespace {

/// Whoever ends the program meanwhile has to wait for all or none; then the signal does what it always does.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
    pthread_sigmask(SIG_BLOCK, &signals, &before_);
  }
  ~SignalsHeld() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_;
};

const char* remedy(int code) {
  switch (code) {
    case EBUSY: return "the device is open and this parameter cannot change meanwhile: prepare it before its VMM starts";
    case EACCES:
    case EPERM: return "only root may: run it as root";
    case EINVAL: return "the device does not allow the value: ask `hookline compat check` why";
    case ENOENT:
    case ENODEV: return "the device is gone: look at `hookline status`";
    default: return "look at `hookline status`";
  }
}

}  // namespace

Result<void> write_parameters(const std::vector<ParameterValue>& wanted, const std::vector<ParameterValue>& before,
                              const ParameterWrite& write) {
  const SignalsHeld held;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Result<void> ok = write(wanted[i]);
    if (ok) continue;
    std::string text = fmt::format("parameter \"{}\" cannot become {}: {}; {}", wanted[i].name, wanted[i].value, ok.error().text,
                                   remedy(ok.error().code));
    bool restored = true;
    while (i-- > 0) {
      // What did not change needs no way back.
      if (before[i] == wanted[i]) continue;
      if (const Result<void> undone = write(before[i]); !undone) {
        restored = false;
        text += fmt::format("; parameter \"{}\" stays {}, it was {}: {}", wanted[i].name, wanted[i].value, before[i].value,
                            undone.error().text);
      }
    }
    if (restored) text += "; the device is as it was";
    return fail(ok.error().code, std::move(text));
  }
  return {};
}

Described<Judged> prepare(const Descriptor& source, const PciAddress& dest, const CompatHost& host) {
  const std::string name = to_string(dest);
  const auto failed = [&name](ExitCode code, std::string text) {
    return tl::make_unexpected(Undescribed{.name = name, .code = code, .reason = {.text = std::move(text)}});
  };
  // Two that prepare one device at the same time would each undo the other.
  const auto lock = host.state.lock();
  if (!lock) return failed(kUnknown, lock.error().text);
  const auto side = describe_device(dest, host);
  if (!side) return tl::make_unexpected(side.error());
  Judged judged = judge(source, *side);
  if (judged.verdict.answer != Answered::yes) return judged;
  if (side->use == Use::not_known) {
    judged.verdict = {.answer = Answered::unknown,
                      .reasons = {{.code = "unknown-device",
                                   .field = "device",
                                   .text = "whether a VMM has the device open cannot be asked, and then it must not be changed",
                                   .fix = "run it as root"}}};
    return judged;
  }
  const auto written = write_parameters(judged.values, judged.present, [&](const ParameterValue& p) {
    return host.sysfs.set_migration_value(dest, p.name, p.value);
  });
  // Open since it was asked.
  if (!written) return failed(written.error().code == EBUSY ? kNo : kUnknown, written.error().text);
  return judged;
}

}  // namespace hookline::loader
