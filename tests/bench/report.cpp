// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/report.hpp"

#include <cpuid.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tests/bench/statistics.hpp"

namespace hookline::bench {
namespace {

constexpr unsigned kHypervisorBit = 1u << 31, kHypervisorLeaf = 0x40000000;

std::string hypervisor() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & kHypervisorBit)) return "none";
  __cpuid(kHypervisorLeaf, eax, ebx, ecx, edx);
  const unsigned words[] = {ebx, ecx, edx};
  char signature[sizeof words + 1] = {};
  std::memcpy(signature, words, sizeof words);
  const std::string_view text = signature;
  if (text.starts_with("TCGTCG")) return "TCG";
  if (text.starts_with("KVMKVM")) return "KVM";
  return signature;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::vector<double> ratios(const Comparison& c) {
  std::vector<double> values;
  for (size_t i = 0; i < c.ns.size(); ++i) values.push_back(c.ns[i] / c.anchor_ns.at(i));
  return values;
}

std::string time(double ns) {
  if (ns < 1e3) return fmt::format("{:.{}f} ns", ns, ns < 100 ? 1 : 0);
  if (ns < 1e6) return fmt::format("{:.{}f} us", ns / 1e3, ns < 1e5 ? 1 : 0);
  return fmt::format("{:.1f} ms", ns / 1e6);
}

std::string factor(double ratio) {
  return fmt::format("{:.{}f}", ratio, ratio < 0.1 ? 3 : ratio < 100 ? 2 : 0);
}

std::string quantity(double ns, double bytes) {
  if (bytes == 0) return time(ns);
  const double mib = bytes / ns * 1e9 / (1 << 20);
  return mib < 1024 ? fmt::format("{:.0f} MiB/s", mib) : fmt::format("{:.1f} GiB/s", mib / 1024);
}

std::string shown(const std::vector<double>& ns, double bytes) {
  const Spread s = spread(ns);
  const auto [first, last] = bytes == 0 ? std::pair(s.low, s.high) : std::pair(s.high, s.low);
  return fmt::format("{} [{}..{}]", quantity(s.median, bytes), quantity(first, bytes), quantity(last, bytes));
}

void check(const Comparison& c) {
  bool good = !c.ns.empty() && c.ns.size() == c.anchor_ns.size();
  for (size_t i = 0; good && i < c.ns.size(); ++i)
    good = std::isfinite(c.ns[i]) && c.ns[i] > 0 && std::isfinite(c.anchor_ns[i]) && c.anchor_ns[i] > 0;
  if (!good)
    throw std::runtime_error(fmt::format("\"{}\" ({}): not every round gave a time", c.what, c.placement));
}

nlohmann::ordered_json json_of(const Spread& s) {
  return {{"median", s.median}, {"min", s.low}, {"max", s.high}};
}

}  // namespace

Machine this_machine() {
  utsname name{};
  ::uname(&name);
  return {cpu_name(), name.release, hypervisor(), static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN))};
}

std::string to_table(const Machine& machine, const Figures& figures) {
  std::string text = fmt::format("Linux {}, {} CPUs, {}, hypervisor: {}\n", machine.kernel, machine.cpus,
                                 machine.cpu, machine.hypervisor);
  if (machine.hypervisor == "TCG")
    text +=
        "Every instruction is emulated: times say how fast the emulator is. Only ratios carry over, "
        "roughly.\n";
  text +=
      "Median [min..max] of rounds. Ratio of times to the anchor: median, [95 % interval of it], "
      "(min..max).\n";
  std::string anchor;
  for (const Comparison& c : figures.ratios) {
    const std::string heading = fmt::format("{} | {}", c.anchor, c.placement);
    if (heading != anchor) {
      anchor = heading;
      text += fmt::format("\n{:<44} {:<12} {}\n", c.anchor, c.placement, shown(c.anchor_ns, c.bytes));
    }
    const std::vector<double> all = ratios(c);
    const Spread s = spread(all);
    const auto interval = median_interval95(all);
    text += fmt::format(
        "  {:<42} {:<12} {:<30} x{} {} ({}..{})\n", c.what, c.placement, shown(c.ns, c.bytes),
        factor(s.median),
        interval ? fmt::format("[{}..{}]", factor(interval->first), factor(interval->second)) : "[-]",
        factor(s.low), factor(s.high));
  }
  if (!figures.counts.empty()) text += "\n";
  for (const Count& c : figures.counts)
    text += fmt::format("{}: {} ({}: {})\n", c.what, c.count, c.anchor, c.anchor_count);
  return text;
}

std::string to_json(const std::string& part, const Machine& machine, const Figures& figures) {
  nlohmann::ordered_json json;
  json["part"] = part;
  json["machine"] = {{"kernel", machine.kernel},
                     {"cpus", machine.cpus},
                     {"cpu", machine.cpu},
                     {"hypervisor", machine.hypervisor}};
  auto& rows = json["figures"] = nlohmann::ordered_json::array();
  for (const Comparison& c : figures.ratios) {
    const std::vector<double> all = ratios(c);
    const auto interval = median_interval95(all);
    nlohmann::ordered_json ratio = json_of(spread(all));
    ratio["interval95"] = nullptr;
    if (interval) ratio["interval95"] = {interval->first, interval->second};
    nlohmann::ordered_json figure = {{"what", c.what},        {"placement", c.placement},
                                     {"rounds", c.ns.size()}, {"ns", json_of(spread(c.ns))},
                                     {"anchor", c.anchor},    {"anchor_ns", json_of(spread(c.anchor_ns))},
                                     {"ratio", ratio}};
    if (c.bytes != 0) figure["bytes"] = c.bytes;
    rows.push_back(std::move(figure));
  }
  auto& counts = json["counts"] = nlohmann::ordered_json::array();
  for (const Count& c : figures.counts)
    counts.push_back(
        {{"what", c.what}, {"count", c.count}, {"anchor", c.anchor}, {"anchor_count", c.anchor_count}});
  return json.dump(2) + "\n";
}

void publish(const std::string& part, const Figures& figures, const std::string& json_path) {
  for (const Comparison& c : figures.ratios) check(c);
  const Machine machine = this_machine();
  fmt::print("{}", to_table(machine, figures));
  if (json_path.empty()) return;
  std::ofstream file(json_path);
  file << to_json(part, machine, figures);
  if (!file.flush()) throw std::runtime_error(json_path + ": cannot be written");
}

}  // namespace hookline::bench
