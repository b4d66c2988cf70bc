// SPDX-License-Identifier: Apache-2.0
//
// Puts the subcommands together and runs the chosen one.
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "command.hpp"
#include "console.hpp"
#include "diagnostics.hpp"

int main(int argc, char** argv) {
  using namespace hookline::loader;
  // A supervisor and a worker are started as /proc/self/exe, and ps would call them "exe".
  ::prctl(PR_SET_NAME, "hookline");
  CommandLine line;
  Globals& globals = line.globals;
  std::string color = "auto";
  bool verbose = false, quiet = false;

  CLI::App app("Live migration of passthrough PCI devices: configuration, plugins, devices.", "hookline");
  app.footer(
      "Exit status: 0 yes, 1 no or failed, 2 usage or configuration, 3 unknown.\n"
      "Environment: HOOKLINE_PLUGIN_PATH (folders separated by ':'), NO_COLOR.");
  app.set_version_flag("--version", "hookline " HOOKLINE_VERSION);
  app.add_option("--plugin-dir", globals.plugin_dirs, "Search plugins in DIR instead of the installed ones; repeatable")
      ->type_name("DIR")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--allow-untrusted", globals.allow_untrusted, "Load plugins that somebody else could have written");
  app.add_option("--root", globals.root, "Look up the system's files below DIR (for tests)")->type_name("DIR");
  app.add_option("--color", color, "Colours in messages: auto, always, never")
      ->type_name("WHEN")
      ->check(CLI::IsMember({"auto", "always", "never"}));
  CLI::Option* be_verbose = app.add_flag("-v,--verbose", verbose, "Say more");
  app.add_flag("-q,--quiet", quiet, "Say only what is wrong")->excludes(be_verbose);
  app.require_subcommand(1);
  app.fallthrough();  // global options may stand behind the subcommand

  add_check(app, line);
  add_plugins(app, line);
  add_describe(app, line);
  add_compat(app, line);
  add_apply(app, line);
  add_detach(app, line);
  add_status(app, line);
  add_run(app, line);
  add_save(app, line);
  add_restore(app, line);

  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    // CLI11 says only that a subcommand is missing when it was mistyped.
    if (app.get_subcommands().empty() && !app.remaining().empty()) {
      const std::string word = app.remaining().front();
      std::vector<std::string> names;
      for (const CLI::App* subcommand : app.get_subcommands([](CLI::App*) { return true; })) names.push_back(subcommand->get_name());
      const std::string guess = did_you_mean(word, names);
      std::fprintf(stderr, "unknown subcommand \"%s\"%s%s\nRun with --help for more information.\n", printable(word).c_str(),
                   guess.empty() ? "" : "; ", guess.c_str());
      return kUsage;
    }
    app.exit(e);
    return kUsage;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kYes : kUsage;
  }
  globals.color = use_color(color, STDERR_FILENO);
  globals.verbosity = verbose - quiet;

  try {
    const int code = line.run(globals);
    // A full disk or a closed pipe is not a success.
    if (std::fflush(stdout) != 0) {
      std::perror("hookline: writing the output");
      return kNo;
    }
    return code;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "hookline: %s\n", e.what());
    return kNo;
  }
}
