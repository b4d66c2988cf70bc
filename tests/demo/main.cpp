// SPDX-License-Identifier: Apache-2.0
//
// hookline-demo: runs the job on two VFs or on two software models. The script `demo` prepares both.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>

#include <fmt/format.h>

#include "tests/demo/job.hpp"
#include "tests/demo/report.hpp"

namespace hookline::demo {
namespace {

// One line that is written over, a few times a second.
class LiveLine {
 public:
  explicit LiveLine(bool on) : on_(on) {}
  ~LiveLine() { clear(); }

  void show(const Progress& progress) {
    const auto now = std::chrono::steady_clock::now();
    if (!on_ || (now < next_ && progress.activity == activity_)) return;
    next_ = now + std::chrono::milliseconds(100);
    activity_ = progress.activity;
    fmt::print("\r{:<32} {:<14} sent {:>5}  answered {:>5}  interrupts {:>5}", progress.activity, progress.device,
               progress.sent, progress.answered, progress.interrupts);
    std::fflush(stdout);
    shown_ = true;
  }

  void clear() {
    if (shown_) fmt::print("\r{:<100}\r", "");
    shown_ = false;
  }

 private:
  bool on_;
  bool shown_ = false;
  std::string activity_;
  std::chrono::steady_clock::time_point next_ = {};
};

int run(int argc, char** argv) {
  CLI::App app("Migrates an 82576 VF under traffic to another one.");
  Options options;
  unsigned spacing = 5;
  bool live = false, color = false;
  std::string json;
  app.add_option("--packets", options.packets, "Before the migration, and again after it")
      ->check(CLI::Range(10, 20000))
      ->capture_default_str();
  app.add_option("--spacing", spacing, "Milliseconds between two packets")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--json", json, "Write the result to this file, too");
  app.add_flag("--live", live, "Show progress in one line");
  app.add_flag("--color", color, "Mark the verdict with a colour");
  app.require_subcommand(1);

  std::string source, destination;
  auto* vfio = app.add_subcommand("vfio", "Two VFs that are bound to vfio-pci-hooks and served by workers");
  vfio->add_option("SOURCE", source, "PCI address")->required();
  vfio->add_option("DESTINATION", destination, "PCI address")->required();
  ModelFiles files;
  auto* model = app.add_subcommand("model", "Two software models in a worker process each");
  model->add_option("PLUGIN", files.plugin, "nic-82576.so")->required()->check(CLI::ExistingFile);
  model->add_option("MODEL", files.model, "nic-82576-model.so")->required()->check(CLI::ExistingFile);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.spacing = std::chrono::milliseconds(spacing);

  Report report;
  try {
    const auto stage = *vfio ? make_vfio_stage(source, destination) : make_model_stage(files);
    LiveLine line(live);
    report = run_job(*stage, options, [&](const Progress& progress) { line.show(progress); });
    line.clear();
    std::cout << to_table(report, color) << std::flush;
  } catch (const std::exception& error) {
    report.problems.push_back(error.what());
    std::cout << std::flush;
    std::cerr << "hookline-demo: " << error.what() << "\n";
  }
  if (!json.empty()) {
    std::ofstream out(json);
    out << to_json(report) << std::flush;
    if (!out) throw std::runtime_error("cannot write " + json);
  }
  return report.ok() ? 0 : 1;
}

}  // namespace
}  // namespace hookline::demo

int main(int argc, char** argv) {
  try {
    return hookline::demo::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "hookline-demo: " << error.what() << "\n";
    return 1;
  }
}
