// SPDX-License-Identifier: Apache-2.0
#include "tests/demo/job.hpp"

#include <fmt/format.h>

namespace hookline::demo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kPiece = 64 * 1024;
constexpr uint64_t kBurst = 4;

class Job {
 public:
  Job(Stage& stage, const Options& options, const std::function<void(const Progress&)>& progress)
      : stage_(stage), options_(options), tell_(progress), traffic_(options.spacing, [this] { progress_now(); }) {}

  Report run();

 private:
  void migrate();
  uint64_t move_state();
  void check_pf(const char* when);
  void judge();
  void progress_now();

  template <typename Work>
  void phase(const char* name, bool in_stop, Work work) {
    activity_ = name;
    progress_now();
    const auto begin = Clock::now();
    const uint64_t bytes = work();
    const std::chrono::duration<double, std::milli> took = Clock::now() - begin;
    report_.phases.push_back({name, took.count(), bytes, in_stop});
  }

  Stage& stage_;
  const Options options_;
  const std::function<void(const Progress&)>& tell_;
  Traffic traffic_;
  Report report_;
  std::string activity_ = "bringing the source up";
  std::vector<std::byte> piece_ = std::vector<std::byte>(kPiece);
};

Report Job::run() {
  report_.source = stage_.source().name();
  report_.destination = stage_.destination().name();
  report_.kernel = stage_.kernel();
  report_.pf_driver = stage_.pf_driver();

  stage_.source().enable();
  traffic_.begin(stage_.source(), stage_.memory());
  phase("traffic on the source", false, [&] {
    traffic_.send(options_.packets, Period::before);
    return 0;
  });
  migrate();
  phase("traffic on the destination", false, [&] {
    traffic_.send(options_.packets, Period::after);
    traffic_.settle(std::chrono::seconds(2));
    return 0;
  });
  check_pf("after the migration");
  judge();
  return std::move(report_);
}

void Job::migrate() {
  Side& source = stage_.source();
  Side& destination = stage_.destination();

  phase("destination: reset, RESUMING", false, [&] {
    destination.reset();
    destination.set_state(MigrationState::resuming);
    return 0;
  });
  phase("source: PRE_COPY", false, [&] {
    source.set_state(MigrationState::pre_copy);
    const PrecopySizes sizes = source.precopy_sizes();
    const uint64_t bytes = move_state();
    if (bytes < sizes.initial)
      report_.problems.push_back(fmt::format("PRECOPY_INFO promised {} bytes, {} came", sizes.initial, bytes));
    return bytes;
  });
  phase("traffic during PRE_COPY", false, [&] {
    traffic_.send(options_.packets / 4, Period::during);
    return 0;
  });
  check_pf("during the migration");
  // At the stop some answers lie in the guest's memory unread, and others are still on the wire.
  traffic_.burst(kBurst, Period::during);
  traffic_.idle(2 * options_.spacing);
  traffic_.burst(kBurst, Period::during);

  report_.source_interrupts = source.interrupts();
  traffic_.stopped();
  phase("source: STOP_COPY", true, [&] {
    source.set_state(MigrationState::stop_copy);
    return 0;
  });
  phase("device state", true, [&] { return move_state(); });
  phase("source: STOP", true, [&] {
    source.set_state(MigrationState::stop);
    return 0;
  });
  phase("destination: RUNNING", true, [&] {
    destination.enable();
    destination.set_state(MigrationState::running);
    return 0;
  });
  const uint64_t before = destination.interrupts();
  traffic_.continue_on(destination, stage_.memory());
  phase("source: reset", false, [&] {
    source.reset();
    return 0;
  });
  report_.destination_interrupts = before;
}

// As much as the source has in this state.
uint64_t Job::move_state() {
  uint64_t moved = 0;
  while (const size_t got = stage_.source().read_state(piece_)) {
    stage_.destination().write_state(std::span(piece_).first(got));
    moved += got;
  }
  report_.stream_bytes += moved;
  return moved;
}

void Job::check_pf(const char* when) {
  const auto driver = stage_.pf_driver();
  if (driver != report_.pf_driver)
    report_.problems.push_back(fmt::format("the PF's driver was {} and is {} {}", report_.pf_driver.value_or("none"),
                                           driver.value_or("none"), when));
}

void Job::judge() {
  report_.before = traffic_.counts(Period::before);
  report_.during = traffic_.counts(Period::during);
  report_.after = traffic_.counts(Period::after);
  report_.destination_interrupts = stage_.destination().interrupts() - report_.destination_interrupts;

  const auto lost = report_.before.lost_outside_stop + report_.during.lost_outside_stop + report_.after.lost_outside_stop;
  if (lost != 0) report_.problems.push_back(fmt::format("{} packets were lost outside the stop", lost));
  if (report_.before.answered == 0) report_.problems.push_back("no traffic on the source");
  if (report_.after.answered == 0) report_.problems.push_back("no traffic on the destination");
  if (report_.source_interrupts == 0) report_.problems.push_back("no interrupt on the source");
  if (report_.destination_interrupts == 0) report_.problems.push_back("no interrupt on the destination");
  if (traffic_.duplicates() != 0)
    report_.problems.push_back(fmt::format("{} answers came twice", traffic_.duplicates()));
  if (traffic_.damaged() != 0) report_.problems.push_back(fmt::format("{} answers were damaged", traffic_.damaged()));
  if (report_.stream_bytes == 0) report_.problems.push_back("the device state was empty");
}

void Job::progress_now() {
  tell_({activity_, traffic_.device(), traffic_.sent(),
         traffic_.answered(), stage_.source().interrupts() + stage_.destination().interrupts()});
}

}  // namespace

double Report::stop_ms() const {
  double sum = 0;
  for (const Phase& phase : phases)
    if (phase.in_stop) sum += phase.ms;
  return sum;
}

Report run_job(Stage& stage, const Options& options, const std::function<void(const Progress&)>& progress) {
  return Job(stage, options, progress).run();
}

}  // namespace hookline::demo
