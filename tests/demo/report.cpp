// SPDX-License-Identifier: Apache-2.0
#include "tests/demo/report.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace hookline::demo {

std::string to_table(const Report& report, bool color) {
  std::string out = fmt::format("\nMoved {} to {}\n\n{:<34}{:>10}{:>9}\n", report.source, report.destination, "phase", "ms", "bytes");
  for (const Phase& phase : report.phases)
    out += fmt::format("{:<34}{:>10.1f}{:>9}\n", (phase.in_stop ? "  " : "") + phase.name, phase.ms,
                       phase.bytes == 0 ? "" : fmt::to_string(phase.bytes));
  out += fmt::format("{:<34}{:>10.1f}{:>9}\n\n", "guest stopped (indented phases)", report.stop_ms(), report.stream_bytes);

  out += fmt::format("{:<10}{:>8}{:>10}{:>18}{:>16}\n", "packets", "sent", "answered", "lost in the stop", "lost elsewhere");
  const std::pair<const char*, const Counts*> rows[] = {
      {"before", &report.before}, {"during", &report.during}, {"after", &report.after}};
  for (const auto& [name, counts] : rows)
    out += fmt::format("{:<10}{:>8}{:>10}{:>18}{:>16}\n", name, counts->sent, counts->answered, counts->lost_in_stop,
                       counts->lost_outside_stop);

  out += fmt::format("\ninterrupts: {} on the source, {} on the destination\n", report.source_interrupts,
                     report.destination_interrupts);
  if (report.pf_driver) out += fmt::format("driver of the PF: {} at each check\n", *report.pf_driver);
  if (report.kernel) out += fmt::format("kernel: {}\n", *report.kernel);
  const char* const end = color ? "\x1b[0m" : "";
  for (const std::string& problem : report.problems)
    out += fmt::format("{}FAILED{}: {}\n", color ? "\x1b[1;31m" : "", end, problem);
  if (report.ok())
    out += fmt::format("{}ok{}: the same rings went on with another device, nothing was lost outside the stop\n",
                       color ? "\x1b[1;32m" : "", end);
  return out;
}

std::string to_json(const Report& report) {
  auto phases = nlohmann::ordered_json::array();
  for (const Phase& phase : report.phases)
    phases.push_back({{"name", phase.name}, {"ms", phase.ms}, {"bytes", phase.bytes}, {"guest_stopped", phase.in_stop}});
  const Counts &before = report.before, &during = report.during, &after = report.after;
  nlohmann::ordered_json json{
      {"ok", report.ok()},
      {"kernel", report.kernel ? nlohmann::ordered_json(*report.kernel) : nlohmann::ordered_json()},
      {"source", report.source},
      {"destination", report.destination},
      {"pf_driver", report.pf_driver ? nlohmann::ordered_json(*report.pf_driver) : nlohmann::ordered_json()},
      {"phases", std::move(phases)},
      {"stop_ms", report.stop_ms()},
      {"packets",
       {{"before", before.sent},
        {"during", during.sent},
        {"after", after.sent},
        {"answered", before.answered + during.answered + after.answered},
        {"lost_in_stop", before.lost_in_stop + during.lost_in_stop + after.lost_in_stop},
        {"lost_outside_stop", before.lost_outside_stop + during.lost_outside_stop + after.lost_outside_stop}}},
      {"interrupts", {{"source", report.source_interrupts}, {"destination", report.destination_interrupts}}},
      {"stream_bytes", report.stream_bytes},
      {"problems", report.problems}};
  return json.dump(2) + "\n";
}

}  // namespace hookline::demo
