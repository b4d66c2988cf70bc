// SPDX-License-Identifier: Apache-2.0
#include "worker.hpp"

#include <poll.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <ctime>
#include <optional>
#include <thread>

#include <hookline/hook_serve.hpp>
#include <hookline/open_device.hpp>
#include <hookline/query_serve.hpp>

#include "device_chain.hpp"
#include "sandbox.hpp"
#include "supervisor.hpp"

namespace hookline::loader {
namespace {

volatile sig_atomic_t stop_wanted = 0;

void on_term(int) { stop_wanted = 1; }

/// SIGTERM interrupts what waits; a terminal's Ctrl-C is the supervisor's to act on. Returns the mask to wait with.
sigset_t handle_signals() {
  struct sigaction action {};
  action.sa_handler = on_term;
  ::sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE}) ::sigaction(signal, &action, nullptr);
  sigset_t term, before;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &term, &before);
  return before;
}

spdlog::level::level_enum to_spdlog(uint32_t level) {
  switch (level) {
    case HOOKLINE_LOG_ERROR: return spdlog::level::err;
    case HOOKLINE_LOG_WARNING: return spdlog::level::warn;
    case HOOKLINE_LOG_INFO: return spdlog::level::info;
    default: return spdlog::level::debug;
  }
}

/// Answers what is asked by migration_version, as long as it lives. Signals are the other thread's.
class QueryThread {
 public:
  QueryThread(const Channel& channel, const Chain& chain, const std::string& config_space, const PluginLog& log)
      : thread_([this, &channel, &chain, config_space, log] {
          const QueryOptions options{.log = log, .should_stop = [this] { return stop_.load(); }};
          if (const auto ok = serve_queries(channel, chain, config_space, options); !ok)
            log(HOOKLINE_LOG_WARNING, "", ok.error().text);
        }) {}
  ~QueryThread() {
    stop_ = true;
    thread_.join();
  }
  QueryThread(const QueryThread&) = delete;
  QueryThread& operator=(const QueryThread&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

int run_worker(const AppliedDevice& device, Channel channel, SupervisorPort supervisor, std::shared_ptr<spdlog::logger> log) {
  const sigset_t unblocked = handle_signals();
  // So that the first line is not the one that looks for the time zone.
  ::tzset();
  if (const auto ok = enter_sandbox(); !ok) {
    log->error("{}", ok.error().text);
    return kWorkerUnable;
  }
  const auto chain = load_chain(device, false);
  if (!chain) {
    log->error("{} (the worker reads its plugins as an unprivileged user)", chain.error().text);
    return kWorkerUnable;
  }
  const PluginLog plugin_log = [&log](uint32_t level, std::string_view plugin, std::string_view text) {
    log->log(to_spdlog(level), "{}{}{}", plugin, plugin.empty() ? "" : ": ", text);
  };
  const DeviceInfo info{to_string(device.address), device.id.vendor, device.id.device, device.vf_index, device.config_space};
  ServeOptions options = serve_options_of(device);
  options.log = plugin_log;
  options.should_stop = [] { return stop_wanted != 0; };

  std::optional<QueryThread> queries;
  if (chain->owner()) queries.emplace(channel, *chain, info.config_space, plugin_log);
  supervisor.tell_ready();
  while (!stop_wanted) {
    auto session = channel.wait_open(*chain, false);
    if (!session && (session.error().code == EAGAIN || session.error().code == EINTR)) {
      pollfd open{channel.fd(), POLLIN, 0};
      ::ppoll(&open, 1, nullptr, &unblocked);
      continue;
    }
    if (!session && session.error().code == ENODEV) return kWorkerGone;
    if (!session) {
      log->error("{}", session.error().text);
      return 1;
    }
    log->info("{}", (*session)->again() ? "serving where the worker before left off" : "opened");
    auto opened = OpenDevice::open(*chain, **session, info, plugin_log, &supervisor);
    if (!opened) {
      log->error("{}", opened.error().text);
      return 1;
    }
    ::sigprocmask(SIG_SETMASK, &unblocked, nullptr);
    const auto end = serve(**session, **opened, options);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &term, nullptr);
    if (!end) {
      log->error("{}", end.error().text);
      return 1;
    }
    switch (*end) {
      case ServeEnd::closed: log->info("closed"); break;
      case ServeEnd::revoked: log->warn("too late: the kernel has taken the device back"); break;
      case ServeEnd::gone: return kWorkerGone;
      case ServeEnd::stopped: break;
    }
  }
  return kWorkerStopped;
}

}  // namespace hookline::loader
