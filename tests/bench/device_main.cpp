// SPDX-License-Identifier: Apache-2.0
//
// The part of ./bench that needs an 82576 and the kernel module: runs in the test machine.
#include <cstdio>
#include <exception>
#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "tests/bench/device_figures.hpp"
#include "tests/support/sysfs.hpp"

using namespace hookline::bench;

int main(int argc, char** argv) {
  Plan plan{21, {}};
  std::string json;
  CLI::App app("Times what a hooked device costs, beside stock vfio-pci and eventfd");
  app.add_option("--rounds", plan.rounds, "how often everything takes its turn")->check(CLI::Range(1, 1000));
  app.add_option("--samples", plan.effort.samples, "per turn; its median counts")
      ->check(CLI::Range(1, 100000));
  app.add_option("--json", json, "write the figures there, too");
  CLI11_PARSE(app, argc, argv);

  try {
    const auto vfs = hookline::sysfs::test_vfs();
    if (vfs.size() < 2) throw std::runtime_error("two VFs are needed: run this with tests/vm/run");
    std::vector<Comparison> figures;
    const auto measure = [&](const char* what, auto function) {
      fmt::print(stderr, "bench: {}\n", what);
      for (Comparison& figure : function()) figures.push_back(std::move(figure));
    };
    measure("trapped reads", [&] { return trapped_reads(vfs[0], plan); });
    measure("writes to the interrupt mask", [&] { return interrupt_mask_writes(vfs[0], vfs[1], plan); });
    if (std::filesystem::exists("/sys/kernel/debug/vfio_pci_hooks_sample"))
      measure("in-kernel handler", [&] { return in_kernel_reads(vfs[0], plan); });
    measure("stock vfio-pci and vfio-pci-hooks", [&] { return untrapped_reads(vfs[0], plan); });
    publish(figures, json);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
    return 1;
  }
}
