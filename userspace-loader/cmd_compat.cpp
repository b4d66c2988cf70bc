// SPDX-License-Identifier: Apache-2.0
//
// hookline compat export|check|select|prepare: can this go there, decided before a byte moves.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "compat_prepare.hpp"
#include "compat_report.hpp"
#include "compat_side.hpp"
#include "diagnostics.hpp"
#include "linux_host.hpp"

namespace hookline::loader {
namespace {

using json = nlohmann::ordered_json;

void print_json(const json& out) { fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace)); }

CompatHost host_of(const Globals& globals) {
  return {Sysfs(globals.root), RunState(globals.root),
          [kernel = std::make_shared<const LinuxHost>(globals.root)](const PciAddress& address) { return kernel->is_open(address); }};
}

/// Says why a side has no descriptor where it is the only thing asked for.
int report(const Undescribed& side) {
  fmt::print(stderr, "{}: {}{}{}\n", printable(side.name, 200), side.reason.text, side.reason.fix.empty() ? "" : "; to do: ",
             side.reason.fix);
  return side.code;
}

// ---- export

struct Export {
  std::string what;
};

int run_export(const Export& command, const Globals& globals) {
  const auto sides = describe_destinations(command.what, host_of(globals), globals);
  if (!sides) return report(sides.error());
  for (const Side& side : *sides) {
    if (side.descriptor != sides->front().descriptor) {
      fmt::print(stderr, "{}: its devices differ ({} and {}): export them one by one, from a configuration each\n",
                 printable(command.what, 200), sides->front().name, side.name);
      return kUsage;
    }
  }
  fmt::print("{}", migration_info(sides->front().descriptor));
  return kYes;
}

// ---- check

struct Check {
  std::string source, dest, type;
  bool json = false;
};

int print_verdict(const std::string& source, const Judged& judged, bool as_json) {
  if (as_json)
    print_json(verdict_json(source, judged));
  else
    fmt::print("{}", verdict_text(source, judged));
  return exit_code(judged.verdict.answer);
}

int run_check(const Check& command, const Globals& globals) {
  const CompatHost host = host_of(globals);
  const std::string& where = command.dest.empty() ? command.type : command.dest;
  const auto source = describe_source(command.source, host);
  if (!source) {
    if (source.error().code == kUsage) return report(source.error());
    Judged judged = judge(source.error());
    judged.name = where;
    return print_verdict(command.source, judged, command.json);
  }
  const auto sides = command.dest.empty() ? describe_config(command.type, globals) : describe_destinations(command.dest, host, globals);
  if (!sides) {
    if (sides.error().code == kUsage) return report(sides.error());
    return print_verdict(command.source, judge(sides.error()), command.json);
  }
  // A configuration can receive what one of its devices can.
  std::vector<Judged> all;
  for (const Side& side : *sides) all.push_back(judge(source->descriptor, side));
  sort_best_first(all);
  return print_verdict(command.source, all.front(), command.json);
}

// ---- select

struct Select {
  std::string source;
  std::vector<std::string> dests;
  bool json = false;
};

int run_select(const Select& command, const Globals& globals) {
  const CompatHost host = host_of(globals);
  const auto source = describe_source(command.source, host);
  if (!source) return report(source.error());
  std::vector<std::string> dests = command.dests;
  if (dests.empty()) {
    for (const PciAddress& address : host.state.devices()) dests.push_back(to_string(address));
  }
  std::vector<Judged> all;
  for (const std::string& dest : dests) {
    auto sides = describe_destinations(dest, host, globals);
    if (!sides) {
      Undescribed& side = sides.error();
      // One that is damaged says nothing about the others.
      if (side.code == kUsage)
        side.reason = {.code = "unknown-destination",
                       .field = "description",
                       .text = side.reason.text,
                       .fix = "describe it anew with `hookline compat export DEVICE|CONFIG`"};
      all.push_back(judge(side));
      continue;
    }
    for (const Side& side : *sides) all.push_back(judge(source->descriptor, side));
  }
  sort_best_first(all);
  const bool found = !all.empty() && all.front().verdict.answer == Answered::yes;
  if (command.json) {
    print_json(candidates_json(command.source, all));
  } else {
    fmt::print("{}", candidates_text(all, false));
    if (!found) fmt::print(stderr, "no device here can receive the state of {}\n", printable(command.source, 200));
    if (!found || globals.verbosity > 0) fmt::print(stderr, "{}", candidates_text(all, true));
  }
  if (found) return kYes;
  return !all.empty() && all.front().verdict.answer == Answered::unknown ? kUnknown : kNo;
}

// ---- prepare

struct Prepare {
  std::string source, dest;
};

int run_prepare(const Prepare& command, const Globals& globals) {
  const CompatHost host = host_of(globals);
  const auto address = parse_pci_address(command.dest);
  if (!address) {
    fmt::print(stderr, "hookline: \"{}\" is no PCI address such as 0000:01:10.0\n", printable(command.dest));
    return kUsage;
  }
  const auto source = describe_source(command.source, host);
  if (!source) return report(source.error());
  const auto prepared = prepare(source->descriptor, *address, host);
  if (!prepared) return report(prepared.error());
  const Judged& judged = *prepared;
  if (judged.verdict.answer != Answered::yes) {
    fmt::print(stderr, "{}", verdict_text(command.source, judged));
    return exit_code(judged.verdict.answer);
  }
  if (globals.verbosity >= 0) {
    fmt::print("{} is prepared for the state of {}\n", judged.name, command.source);
    for (const ParameterValue& p : judged.values) fmt::print("  {} is {}\n", p.name, p.value);
  }
  return kYes;
}

constexpr const char* kSource = "What the state comes from: a file (migration_info or migration_version), - or a PCI address";

}  // namespace

void add_compat(CLI::App& app, CommandLine& line) {
  CLI::App* compat = app.add_subcommand("compat", "Tell whether one device can receive the state of another");
  compat->require_subcommand(1);
  compat->fallthrough();
  compat->footer("Exit status: 0 yes, 1 no, 2 usage or configuration, 3 unknown.");

  auto exported = std::make_shared<Export>();
  CLI::App* export_ = compat->add_subcommand("export", "Describe a device or a configuration, for a check anywhere else");
  export_->add_option("DEVICE|CONFIG", exported->what, "PCI address, or YAML file")->required()->type_name("");
  export_->callback([exported, &line] { line.run = [exported](const Globals& globals) { return run_export(*exported, globals); }; });

  auto checked = std::make_shared<Check>();
  CLI::App* check = compat->add_subcommand("check", "Say yes, or no and why and what to do");
  check->add_option("--source", checked->source, kSource)->required()->type_name("FILE|DEVICE");
  auto* where = check->add_option_group("destination");
  where->add_option("--dest", checked->dest, "Where it is to go: a file (migration_info), - or a PCI address, or YAML file")
      ->type_name("FILE|DEVICE|CONFIG");
  where->add_option("--type", checked->type, "The same for a YAML file, before there is a device")->type_name("CONFIG");
  where->require_option(1);
  check->add_flag("--json", checked->json, "Print the verdict as JSON");
  check->callback([checked, &line] { line.run = [checked](const Globals& globals) { return run_check(*checked, globals); }; });

  auto selected = std::make_shared<Select>();
  CLI::App* select = compat->add_subcommand("select", "List those that can receive, the best first");
  select->add_option("--source", selected->source, kSource)->required()->type_name("FILE|DEVICE");
  select->add_option("DEVICE", selected->dests, "PCI addresses or files; without, the devices of this host")->type_name("");
  select->add_flag("--json", selected->json, "Print the list as JSON, with those that cannot and why");
  select->footer("Best is who has the fewest parameters to change, then who has the source's version of the plugin.\n"
                 "Exit status: 0 there is one, 1 there is none, 2 usage or configuration, 3 unknown.");
  select->callback([selected, &line] { line.run = [selected](const Globals& globals) { return run_select(*selected, globals); }; });

  auto prepared = std::make_shared<Prepare>();
  CLI::App* prepare = compat->add_subcommand("prepare", "Give a device the parameters of the source, all or none");
  prepare->add_option("--source", prepared->source, kSource)->required()->type_name("FILE|DEVICE");
  prepare->add_option("--dest", prepared->dest, "PCI address")->required()->type_name("DEVICE");
  prepare->callback([prepared, &line] { line.run = [prepared](const Globals& globals) { return run_prepare(*prepared, globals); }; });
}

}  // namespace hookline::loader
