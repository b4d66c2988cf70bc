// SPDX-License-Identifier: Apache-2.0
//
// The part of ./bench that needs an 82576 and the kernel module: runs in the test machine.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "tests/bench/device_figures.hpp"
#include "tests/support/sysfs.hpp"

using namespace hookline::bench;

namespace {

struct Part {
  const char* name;
  const char* what;
  std::function<Figures()> measure;
};

}  // namespace

int main(int argc, char** argv) {
  Plan plan{.rounds = 21, .effort = {}, .most_state = 16 << 20};
  std::string json, name = "vm";
  std::vector<std::string> only;
  CLI::App app("Times what a hooked device costs, beside stock vfio-pci and eventfd");
  app.add_option("--rounds", plan.rounds, "how often everything takes its turn")->check(CLI::Range(1, 1000));
  app.add_option("--samples", plan.effort.samples, "per turn; its median counts")
      ->check(CLI::Range(1, 100000));
  app.add_option("--most-state", plan.most_state, "bytes of the largest device state that is moved");
  app.add_option("--only", only, "this part, and others that are named so");
  app.add_option("--name", name, "of this run in targets.csv");
  app.add_option("--json", json, "write the figures there, too");
  CLI11_PARSE(app, argc, argv);

  try {
    const auto vfs = hookline::sysfs::test_vfs();
    if (vfs.size() < 2) throw std::runtime_error("two VFs are needed: run this with tests/vm/run");
    const Part parts[] = {
        {"trapped", "trapped reads", [&] { return trapped_reads(vfs[0], plan); }},
        {"polled", "trapped reads, worker polls", [&] { return polled_reads(vfs[0], plan); }},
        {"interrupt-mask", "writes to the interrupt mask",
         [&] { return interrupt_mask_writes(vfs[0], vfs[1], plan); }},
        {"in-kernel", "in-kernel handler", [&] { return in_kernel_reads(vfs[0], plan); }},
        {"untrapped", "stock vfio-pci and vfio-pci-hooks", [&] { return untrapped_accesses(vfs[0], plan); }},
        {"state-changes", "state changes", [&] { return state_changes(vfs[0], vfs[1], plan); }},
        {"size-questions", "questions about sizes", [&] { return size_questions(vfs[0], plan); }},
        {"data-file", "data file and pipe", [&] { return data_file(vfs[0], vfs[1], plan); }},
        {"downtime", "downtime by size of the state", [&] { return downtime(vfs[0], vfs[1], plan); }},
        {"many-devices", "many devices", [&] { return many_devices(vfs, plan); }},
        {"dirty-pages", "reports of DMA logging", [&] { return dirty_pages(vfs[0], vfs[1], plan); }},
    };
    for (const std::string& wanted : only)
      if (std::ranges::none_of(parts, [&](const Part& part) { return part.name == wanted; }))
        throw std::runtime_error("there is no part \"" + wanted + "\"");
    Figures figures;
    for (const Part& part : parts) {
      if (!only.empty() && std::ranges::find(only, part.name) == only.end()) continue;
      fmt::print(stderr, "bench: {}\n", part.what);
      Figures measured = part.measure();
      std::ranges::move(measured.ratios, std::back_inserter(figures.ratios));
      std::ranges::move(measured.counts, std::back_inserter(figures.counts));
    }
    publish(name, figures, json);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
    return 1;
  }
}
