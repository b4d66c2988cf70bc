// SPDX-License-Identifier: Apache-2.0
#include "plugin_catalog.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "diagnostics.hpp"
#include "plugin_declaration.hpp"

namespace hookline::loader {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

}  // namespace

std::vector<std::string> plugin_search_path(const std::vector<std::string>& from_options, const std::string& root) {
  if (!from_options.empty()) return from_options;
  if (const char* path = std::getenv("HOOKLINE_PLUGIN_PATH"); path && *path) return split(path, ':');
  std::error_code ignored;
  const fs::path build = fs::read_symlink("/proc/self/exe", ignored).parent_path().parent_path();
  if (fs::exists(build / "CMakeCache.txt", ignored)) return {(build / "plugins").string()};
  return {(fs::path(root) / fs::path(HOOKLINE_INSTALLED_PLUGINS).relative_path()).string()};
}

PluginCatalog::PluginCatalog(std::vector<std::string> folders, LoadOptions options)
    : folders_(std::move(folders)), options_(options) {}

Result<PluginPtr> PluginCatalog::find(const std::string& name) {
  if (is_plugin_name(name)) {
    for (const std::string& folder : folders_) {
      const fs::path path = fs::path(folder) / (name + ".so");
      std::error_code ignored;
      if (fs::exists(path, ignored)) return find_name_or_file(path.string());
    }
  }
  return fail(ENOENT, fmt::format("no plugin \"{}\" in {}", printable(name), fmt::join(folders_, ", ")));
}

Result<PluginPtr> PluginCatalog::find_name_or_file(const std::string& name_or_file) {
  if (name_or_file.find('/') == std::string::npos) return find(name_or_file);
  auto known = loaded_.find(name_or_file);
  if (known == loaded_.end()) known = loaded_.emplace(name_or_file, load_plugin(name_or_file, options_)).first;
  return known->second;
}

std::vector<PluginCatalog::Entry> PluginCatalog::list() const {
  std::map<std::string, std::string> found;
  for (const std::string& folder : folders_) {
    std::error_code ignored;
    for (fs::directory_iterator at(folder, ignored), end; at != end; at.increment(ignored)) {
      const fs::path& path = at->path();
      if (path.extension() == ".so" && is_plugin_name(path.stem().string())) found.emplace(path.stem().string(), path.string());
    }
  }
  std::vector<Entry> entries;
  for (const auto& [name, path] : found) entries.push_back({name, path});
  return entries;
}

std::vector<std::string> PluginCatalog::names() const {
  std::vector<std::string> all;
  for (const Entry& entry : list()) all.push_back(entry.name);
  return all;
}

}  // namespace hookline::loader
