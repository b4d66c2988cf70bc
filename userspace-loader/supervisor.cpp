// SPDX-License-Identifier: Apache-2.0
#include "supervisor.hpp"

#include <poll.h>
#include <signal.h>
// Older glibc forgets to say so itself.
extern "C" {
#include <sys/pidfd.h>
}
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "child_process.hpp"
#include "command.hpp"
#include "device_chain.hpp"
#include "pf_change.hpp"

namespace hookline::loader {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBeat{500};           // how often the kernel is asked whether the worker serves
constexpr milliseconds kHung{1500};          // open and not served for so long: the worker hangs
constexpr milliseconds kAttachRetry{50};     // somebody else holds the channel still
constexpr int kStopLimitMs = 2000;

}  // namespace

Supervisor::Supervisor(DeviceRecord record, std::string root, int verbosity, const RunState& state, const Sysfs& sysfs,
                       std::shared_ptr<spdlog::logger> log)
    : record_(std::move(record)),
      address_(to_string(record_.device.address)),
      root_(std::move(root)),
      verbosity_(verbosity),
      state_(state),
      pf_(sysfs, record_.device.pf, record_.device.vf_index),
      log_(std::move(log)) {}

int Supervisor::run() {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&handled, signal);
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  signals_ = FileDescriptor(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));

  uint64_t watchdog_us = 0;
  if (sd_watchdog_enabled(0, &watchdog_us) > 0) watchdog_ = std::chrono::microseconds(watchdog_us / 2);

  const auto earlier = state_.service(record_.device.address);
  if (earlier && is_alive(earlier->supervisor)) {
    log_->error("process {} supervises this device already", earlier->supervisor.pid);
    return kNo;
  }
  service_.supervisor = process_of(::getpid());
  if (!adopt_earlier_worker()) write_state();

  while (!exit_code_) {
    if (!worker_ && Clock::now() >= restart_at_) try_to_start();
    if (exit_code_) break;
    pollfd waits[3] = {{signals_.get(), POLLIN, 0},
                       {worker_ ? worker_->pidfd.get() : -1, POLLIN, 0},
                       {worker_ && worker_->port ? worker_->port->fd() : -1, POLLIN, 0}};
    ::poll(waits, 3, next_timeout_ms());
    if (watchdog_.count() > 0) tell("WATCHDOG=1");
    if (waits[2].revents) hear_worker();
    if (waits[1].revents) on_worker_end();
    if (waits[0].revents) on_signal();
    if (worker_) end_hung_worker();
  }

  tell("STOPPING=1");
  stop_worker();
  state_.forget_service(record_.device.address);
  return *exit_code_;
}

bool Supervisor::adopt_earlier_worker() {
  const auto earlier = state_.service(record_.device.address);
  if (!earlier || !is_alive(earlier->worker)) return false;
  Worker worker{.process = earlier->worker, .pidfd = FileDescriptor(::pidfd_open(earlier->worker.pid, 0)), .is_child = false};
  if (worker.pidfd.get() < 0 || !is_alive(earlier->worker)) return false;
  log_->info("worker {} of an earlier supervisor serves; waiting for its end", earlier->worker.pid);
  service_.worker = worker.process;
  service_.ready = was_ready_ = earlier->ready;
  worker_ = std::move(worker);
  write_state();
  tell(fmt::format("READY=1\nSTATUS=worker {} of an earlier supervisor serves", service_.worker.pid).c_str());
  return true;
}

void Supervisor::try_to_start() {
  const auto started = start_worker();
  if (started) return;
  switch (started.error().code) {
    case EBUSY:
      // A worker nobody wrote down; its end cannot be waited for, only be tried.
      if (!std::exchange(said_busy_, true)) log_->warn("{}; trying on", started.error().text);
      restart_at_ = Clock::now() + kAttachRetry;
      return;
    case ENXIO:
    case ENOENT:
    case ENODEV:
      log_->error("{}", started.error().text);
      exit_code_ = was_ready_ ? kYes : kNo;
      return;
    default:
      log_->error("{}", started.error().text);
      if (!was_ready_) exit_code_ = kNo;
      restart_at_ = Clock::now() + backoff_.next(milliseconds::zero());
  }
}

Result<void> Supervisor::start_worker() {
  const auto control = ControlDevice::open();
  if (!control) return fail(control.error());
  const auto channel = control->attach(to_uapi(record_.device.address));
  if (!channel) return fail(channel.error());
  auto ends = worker_socketpair();
  if (!ends) return fail(ends.error());

  std::vector<std::string> arguments{"/proc/self/exe"};
  if (root_ != "/") arguments.insert(arguments.end(), {"--root", root_});
  if (verbosity_ != 0) arguments.push_back(verbosity_ > 0 ? "-v" : "-q");
  arguments.insert(arguments.end(), {"worker", address_});
  const auto pid =
      spawn(arguments, {.descriptors = {{channel->fd(), kChannelFd}, {ends->second.get(), kSupervisorFd}}});
  if (!pid) return fail(pid.error());

  service_.worker = process_of(*pid);
  service_.ready = false;
  said_busy_ = false;
  unserved_since_.reset();
  worker_ = Worker{.process = service_.worker,
                   .pidfd = FileDescriptor(::pidfd_open(*pid, 0)),
                   .port = WorkerPort(std::move(ends->first), [this](hookline_pf_request& r) { return ask_pf(r); })};
  log_->debug("worker {} started", *pid);
  write_state();
  return {};
}

// What is changed on the PF's side outlives the migration: it is written down for detach, and stands in the log.
Result<void> Supervisor::ask_pf(hookline_pf_request& request) {
  if (request.what == HOOKLINE_PF_GET) return pf_.perform(request);
  const auto done = remember_pf(request).and_then([&] { return pf_.perform(request); });
  if (done)
    log_->info("set {} for the VF on its PF, as the plugin asked", describe(request));
  else
    log_->warn("the plugin asked to set {} for the VF on its PF: {}", describe(request), done.error().text);
  return done;
}

Result<void> Supervisor::remember_pf(const hookline_pf_request& request) const {
  hookline_pf_request now{};
  now.what = HOOKLINE_PF_GET;
  if (const auto asked = pf_.perform(now); !asked) return asked;
  const auto earlier = state_.pf_change(record_.device.address);
  if (!earlier) return fail(earlier.error());
  return state_.remember(with_request(*earlier, record_.device.address, settings_of(now), request));
}

void Supervisor::hear_worker() {
  switch (worker_->port->hear()) {
    case WorkerPort::Heard::ready:
      service_.ready = was_ready_ = true;
      write_state();
      log_->info("worker {} is ready", worker_->process.pid);
      tell(fmt::format("READY=1\nSTATUS=worker {} serves", worker_->process.pid).c_str());
      return;
    case WorkerPort::Heard::nonsense:
      log_->warn("worker {} sent something that is no request; ignored", worker_->process.pid);
      return;
    case WorkerPort::Heard::closed:
      worker_->port.reset();
      return;
    case WorkerPort::Heard::request:
    case WorkerPort::Heard::nothing: return;
  }
}

void Supervisor::on_worker_end() {
  int status = 0;
  std::string end = "it was another supervisor's";
  if (worker_->is_child) {
    ::waitpid(worker_->process.pid, &status, 0);
    end = describe_end(status);
  }
  const auto lived = std::chrono::duration_cast<milliseconds>(Clock::now() - worker_->started);
  const int code = worker_->is_child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  service_.last_end = fmt::format("worker {} ended: {}", worker_->process.pid, end);
  service_.worker = {};
  service_.ready = false;
  worker_.reset();

  if (code == kWorkerGone) {
    log_->info("the function has left the driver; nothing is left to serve");
    exit_code_ = kYes;
  } else if (code == kWorkerUnable && !was_ready_) {
    exit_code_ = kNo;
  } else {
    const milliseconds delay = backoff_.next(lived);
    restart_at_ = Clock::now() + delay;
    ++service_.restarts;
    log_->warn("{}; starting another one{}", service_.last_end,
               delay.count() ? fmt::format(" in {} ms", delay.count()) : " at once");
  }
  write_state();
}

void Supervisor::end_hung_worker() {
  const auto control = ControlDevice::open();
  if (!control) return;
  const auto status = control->status(to_uapi(record_.device.address));
  const uint32_t flags = status ? status->flags : 0;
  const bool unserved = service_.ready && flags & VFIO_PCI_HOOKS_STATUS_OPEN && !(flags & VFIO_PCI_HOOKS_STATUS_SERVED);
  if (!unserved) {
    unserved_since_.reset();
    return;
  }
  if (!unserved_since_) unserved_since_ = Clock::now();
  if (Clock::now() - *unserved_since_ < kHung) return;
  log_->error("worker {} hangs: the device is open and it does not serve; killing it", worker_->process.pid);
  ::pidfd_send_signal(worker_->pidfd.get(), SIGKILL, nullptr, 0);
  unserved_since_.reset();
}

void Supervisor::on_signal() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == sizeof info)
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) exit_code_ = kYes;
}

void Supervisor::stop_worker() {
  if (!worker_) return;
  pollfd ended{worker_->pidfd.get(), POLLIN, 0};
  ::pidfd_send_signal(ended.fd, SIGTERM, nullptr, 0);
  if (::poll(&ended, 1, kStopLimitMs) == 0) {
    log_->warn("worker {} does not stop; killing it", worker_->process.pid);
    ::pidfd_send_signal(ended.fd, SIGKILL, nullptr, 0);
    ::poll(&ended, 1, kStopLimitMs);
  }
  if (worker_->is_child) ::waitpid(worker_->process.pid, nullptr, WNOHANG);
  worker_.reset();
}

int Supervisor::next_timeout_ms() const {
  auto timeout = kBeat;
  if (!worker_)
    timeout = std::min(timeout, std::chrono::ceil<milliseconds>(std::max(restart_at_ - Clock::now(), Clock::duration::zero())));
  if (watchdog_.count() > 0) timeout = std::min(timeout, std::chrono::duration_cast<milliseconds>(watchdog_));
  return static_cast<int>(timeout.count());
}

void Supervisor::tell(const char* state) const { sd_notify(0, state); }

void Supervisor::write_state() const {
  if (const auto ok = state_.remember(record_.device.address, service_); !ok) log_->warn("{}", ok.error().text);
}

}  // namespace hookline::loader
