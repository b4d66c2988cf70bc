// SPDX-License-Identifier: Apache-2.0
//
// What every subcommand shares: global options, exit codes, the two output streams.
//
// A subcommand is one file cmd_NAME.cpp with one function add_NAME(), which declares its options and what to run:
//
//     void add_check(CLI::App& app, CommandLine& line) {
//       auto file = std::make_shared<std::string>();
//       CLI::App* check = app.add_subcommand("check", "...");
//       check->add_option("FILE", *file)->required();
//       check->callback([file, &line] { line.run = [file](const Globals& globals) { return check_file(*file, globals); }; });
//     }
//
// Results go to stdout, everything else to stderr. Thread rule: main thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace hookline::loader {

/// Of every subcommand; documented in --help.
enum ExitCode : int { kYes = 0, kNo = 1, kUsage = 2, kUnknown = 3 };

struct Globals {
  std::vector<std::string> plugin_dirs;
  std::string root = "/";  ///< where /sys, /run and the installed plugins are looked up
  bool allow_untrusted = false;
  bool color = false;  ///< on stderr
  int verbosity = 0;   ///< below 0 with -q, above with -v
};

struct CommandLine {
  Globals globals;
  std::function<int(const Globals&)> run;  ///< set by the chosen subcommand
};

void add_check(CLI::App& app, CommandLine& line);
void add_plugins(CLI::App& app, CommandLine& line);
void add_describe(CLI::App& app, CommandLine& line);
void add_apply(CLI::App& app, CommandLine& line);
void add_detach(CLI::App& app, CommandLine& line);
void add_status(CLI::App& app, CommandLine& line);
void add_run(CLI::App& app, CommandLine& line);
void add_save(CLI::App& app, CommandLine& line);
void add_compat(CLI::App& app, CommandLine& line);
void add_restore(CLI::App& app, CommandLine& line);

}  // namespace hookline::loader
