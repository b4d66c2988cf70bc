// SPDX-License-Identifier: Apache-2.0
#include "device_log.hpp"

#include <cstdlib>

#include <spdlog/sinks/stdout_sinks.h>

namespace hookline::loader {

std::shared_ptr<spdlog::logger> device_log(const std::string& address, int verbosity) {
  auto log = std::make_shared<spdlog::logger>(address, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  log->set_pattern(journal ? "%n: %v" : "%Y-%m-%d %H:%M:%S.%e %n: %l: %v");
  log->set_level(verbosity > 0 ? spdlog::level::debug : verbosity < 0 ? spdlog::level::warn : spdlog::level::info);
  log->flush_on(spdlog::level::trace);
  return log;
}

}  // namespace hookline::loader
