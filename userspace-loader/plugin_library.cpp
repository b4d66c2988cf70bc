// SPDX-License-Identifier: Apache-2.0
#include "plugin_library.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <optional>

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>
#include <fmt/format.h>

#include "diagnostics.hpp"
#include "hookline/chain.hpp"
#include "plugin_declaration.hpp"
#include "plugin_file.hpp"

namespace hookline::loader {
namespace {

constexpr int kRehearsalMs = 10000;  // a loaded machine may take long, a plugin in order takes microseconds
constexpr int kRehearsed = 42;  // exit status of a child that came back from the dynamic linker

// Everything is resolved now, or a plugin with an undefined symbol would die in the middle of a migration; nothing of one
// plugin is seen by another.
constexpr auto kLoadMode = boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local;

std::string shown(const std::string& path) { return printable(path, 300); }

Result<std::shared_ptr<boost::dll::shared_library>> open_library(const std::string& path) {
  // Without a slash the dynamic linker would search the system for it.
  const std::string absolute = std::filesystem::absolute(path).string();
  try {
    return std::make_shared<boost::dll::shared_library>(absolute, kLoadMode);
  } catch (const boost::dll::fs::system_error& e) {
    // What the dynamic linker said stands in the middle of what Boost says, between two markers.
    std::string why = e.what();
    static constexpr std::string_view kBegin = "(dlerror system message: ";
    if (const size_t at = why.find(kBegin); at != std::string::npos) why.erase(0, at + kBegin.size());
    if (const size_t at = why.rfind("): "); at != std::string::npos) why.erase(at);
    if (why.compare(0, absolute.size() + 2, absolute + ": ") == 0) why.erase(0, absolute.size() + 2);
    return fail(ENOEXEC, fmt::format("{}: the dynamic linker refuses it: {}; what a plugin needs must be inside it or come from "
                                     "its host's table (link with -Wl,-z,defs)",
                                     shown(path), printable(why, 300)));
  } catch (...) {
    return fail(ENOEXEC, fmt::format("{}: threw an exception while being loaded; a plugin has no code that runs then", shown(path)));
  }
}

// Loads it in a child that is thrown away.
Result<void> rehearse(const std::string& path) {
  const auto refuse = [&](const std::string& what) {
    return fail(ENOEXEC, fmt::format("{}: {} while being loaded; a plugin has no code that runs then (constructors of global "
                                     "objects are such code)",
                                     shown(path), what));
  };
  const pid_t child = fork();
  if (child < 0) {
    const int code = errno;
    return fail(code, fmt::format("{}: cannot be tried out: {}", shown(path), std::strerror(code)));
  }
  if (child == 0) {
    const int null = open("/dev/null", O_RDWR);
    if (null >= 0)
      for (const int fd : {0, 1, 2}) dup2(null, fd);
    const auto library = open_library(path);
    _exit(kRehearsed);
  }
  const int watch = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  pollfd ended{watch, POLLIN, 0};
  int ready = -1;
  if (watch >= 0)
    while ((ready = poll(&ended, 1, kRehearsalMs)) < 0 && errno == EINTR) {
    }
  if (ready == 0) kill(child, SIGKILL);
  if (watch >= 0) close(watch);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (ready == 0) return refuse(fmt::format("did not come back within {} s", kRehearsalMs / 1000));
  if (WIFSIGNALED(status)) return refuse(fmt::format("crashed ({})", strsignal(WTERMSIG(status))));
  if (WEXITSTATUS(status) != kRehearsed) return refuse("ended the process");
  return {};
}

// The plugin's file as it is mapped. A pointer of the plugin object that leads outside, or a text without an end, is found
// here instead of by the first who follows it.
class Image {
 public:
  Image(uintptr_t base, const std::vector<Segment>& segments) : base_(base), segments_(segments) {}

  /// Bytes from `pointer` to the end of its segment; 0: outside.
  uint64_t room(const void* pointer) const {
    const uint64_t at = reinterpret_cast<uintptr_t>(pointer) - base_;
    for (const Segment& segment : segments_)
      if (at >= segment.address && at - segment.address < segment.size) return segment.size - (at - segment.address);
    return 0;
  }
  bool holds_text(const char* text) const {
    const uint64_t most = std::min<uint64_t>(room(text), kMaxText);
    return most && std::memchr(text, 0, most);
  }
  template <typename T>
  bool holds_array(const T* array, uint32_t count) const {
    return count == 0 || (reinterpret_cast<uintptr_t>(array) % alignof(T) == 0 && room(array) / sizeof(T) >= count);
  }

 private:
  static constexpr uint64_t kMaxText = 4097;  // the longest is a migration_version
  uintptr_t base_;
  const std::vector<Segment>& segments_;
};

// The name of the field that leads outside, or nullopt.
std::optional<std::string> stray_pointer(const hookline_plugin& p, const Image& image) {
  const auto bad_text = [&](const char* text) { return text && !image.holds_text(text); };
  const struct {
    const char* name;
    const char* text;
  } texts[] = {{"name", p.name},
               {"version", p.version},
               {"summary", p.summary},
               {"model", p.model},
               {"migration_version", p.migration_version},
               {"reads", p.reads}};
  for (const auto& field : texts)
    if (bad_text(field.text)) return field.name;

  if (!image.holds_array(p.devices, p.nr_devices)) return "devices";
  if (!image.holds_array(p.ranges, p.nr_ranges)) return "ranges";
  if (!image.holds_array(p.registers, p.nr_registers)) return "registers";
  if (!image.holds_array(p.keys, p.nr_keys)) return "keys";
  if (!image.holds_array(p.parameters, p.nr_parameters)) return "parameters";
  if (!image.holds_array(p.stop.steps, p.stop.nr_steps)) return "stop.steps";
  if (!image.holds_array(p.start.steps, p.start.nr_steps)) return "start.steps";
  if (!image.holds_array(p.reset.steps, p.reset.nr_steps)) return "reset.steps";

  for (uint32_t i = 0; i < p.nr_registers; ++i)
    if (bad_text(p.registers[i].name)) return fmt::format("registers[{}].name", i);
  for (uint32_t i = 0; i < p.nr_keys; ++i) {
    const hookline_key& key = p.keys[i];
    if (bad_text(key.name)) return fmt::format("keys[{}].name", i);
    if (bad_text(key.help)) return fmt::format("keys[{}].help", i);
    if (bad_text(key.default_value)) return fmt::format("keys[{}].default_value", i);
    if (bad_text(key.choices)) return fmt::format("keys[{}].choices", i);
  }
  for (uint32_t i = 0; i < p.nr_parameters; ++i) {
    const hookline_parameter& parameter = p.parameters[i];
    if (bad_text(parameter.name)) return fmt::format("parameters[{}].name", i);
    if (bad_text(parameter.description)) return fmt::format("parameters[{}].description", i);
    if (bad_text(parameter.init_value)) return fmt::format("parameters[{}].init_value", i);
    if (bad_text(parameter.off_value)) return fmt::format("parameters[{}].off_value", i);
    if (bad_text(parameter.allowed_values)) return fmt::format("parameters[{}].allowed_values", i);
  }
  return std::nullopt;
}

// What can be wrong with a plugin before it meets another: a chain of one.
Result<void> check_alone(const hookline_plugin& plugin) {
  if (auto ok = check_declaration(plugin); !ok) return ok;
  auto link = make_link(plugin);
  if (!link) return fail(link.error());
  if (auto chain = build_chain({std::move(*link)}); !chain) return fail(chain.error());
  return {};
}

}  // namespace

bool LoadedPlugin::serves(uint16_t vendor, uint16_t device) const {
  if (abi_.nr_devices == 0) return true;
  return std::any_of(abi_.devices, abi_.devices + abi_.nr_devices,
                     [&](const hookline_device_id& id) { return id.vendor == vendor && id.device == device; });
}

Result<PluginPtr> load_plugin(const std::string& path, const LoadOptions& options) {
  const auto file = inspect_plugin_file(path);
  if (!file) return fail(file.error());
  if (!options.allow_untrusted)
    if (auto ok = check_trusted(path); !ok) return fail(ok.error());
  if (options.rehearse)
    if (auto ok = rehearse(path); !ok) return fail(ok.error());
  auto library = open_library(path);
  if (!library) return fail(library.error());
  if (!(*library)->has(HOOKLINE_PLUGIN_SYMBOL))
    return fail(ENOEXEC, fmt::format("{}: its {} is not found by the dynamic linker; link it anew", shown(path), HOOKLINE_PLUGIN_SYMBOL));
  const auto* object = &(*library)->get<const hookline_plugin>(HOOKLINE_PLUGIN_SYMBOL);

  const Image image(reinterpret_cast<uintptr_t>(object) - file->symbol_address, file->segments);
  hookline_abi built_for = {};
  if (image.room(object) < file->symbol_size)
    return fail(ENOEXEC, fmt::format("{}: changed while it was being loaded; try again", shown(path)));
  std::memcpy(&built_for, object, sizeof(built_for));
  if (auto ok = check_abi(path, built_for, file->symbol_size); !ok) return fail(ok.error());

  auto plugin = std::shared_ptr<LoadedPlugin>(new LoadedPlugin);
  plugin->path_ = path;
  plugin->built_for_ = built_for;
  plugin->library_ = *library;
  std::memcpy(&plugin->abi_, object, std::min<size_t>(built_for.size, sizeof(plugin->abi_)));

  if (const auto field = stray_pointer(plugin->abi_, image))
    return fail(ENOEXEC, fmt::format("{}: its field \"{}\" points outside of the file or has no end; what a plugin declares is "
                                     "constant data of its own",
                                     shown(path), *field));
  if (auto ok = check_alone(plugin->abi_); !ok) return fail(ok.error().code, shown(path) + ": " + ok.error().text);
  const std::string stem = std::filesystem::path(path).stem().string();
  if (stem != plugin->abi_.name)
    return fail(ENOEXEC, fmt::format("{}: holds the plugin \"{}\"; name the file {}.so", shown(path), plugin->abi_.name,
                                     plugin->abi_.name));
  return PluginPtr(plugin);
}

}  // namespace hookline::loader
