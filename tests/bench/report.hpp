// SPDX-License-Identifier: Apache-2.0
//
// Figures beside their anchors: what people and what programs get to see of them.
//
// Any thread. Errors: publish() throws std::runtime_error for a figure that is no number, or a file it cannot
// write.
//
//     publish("vm", {{{.what = "trapped read", .anchor = "eventfd round trip", .placement = "same CPU",
//                      .ns = trapped, .anchor_ns = eventfd}}, {}}, json_path);
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hookline::bench {

struct Comparison {
  std::string what, anchor;
  std::string placement;              ///< on which CPUs; a figure without it says nothing
  std::vector<double> ns, anchor_ns;  ///< per operation, one of each a round
  double bytes = 0;                   ///< moved by one operation; not 0: shown as a rate
};

/// How often something happened. No statistics: it is the same each time.
struct Count {
  std::string what, anchor;
  uint64_t count, anchor_count;
};

struct Figures {
  std::vector<Comparison> ratios{};
  std::vector<Count> counts{};
};

/// Where this runs, as far as it decides what figures mean.
struct Machine {
  std::string cpu, kernel;
  std::string hypervisor;  ///< "TCG", "KVM", another's signature, or "none"
  int cpus;
};
Machine this_machine();

std::string to_table(const Machine& machine, const Figures& figures);
/// `part`: what targets.csv calls this run.
std::string to_json(const std::string& part, const Machine& machine, const Figures& figures);

/// Prints the table and, unless the path is empty, writes the JSON.
void publish(const std::string& part, const Figures& figures, const std::string& json_path);

}  // namespace hookline::bench
