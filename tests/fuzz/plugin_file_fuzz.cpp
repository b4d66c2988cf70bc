// SPDX-License-Identifier: Apache-2.0
//
// The inspection of a plugin's file, before the dynamic linker sees it: any bytes are refused or described,
// and what is described lies inside of what the file says it maps.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "plugin_file.hpp"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "plugin_file_fuzz: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hookline::loader;
  static const int fd = memfd_create("plugin", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  require(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == static_cast<ssize_t>(size),
          "no memory for the file");

  const auto plugin = inspect_plugin_file(path);
  if (!plugin) {
    require(plugin.error().code == ENOEXEC && plugin.error().text.rfind(path, 0) == 0,
            "a refusal that names no file");
    return 0;
  }
  require(plugin->abi.magic == HOOKLINE_ABI_MAGIC && plugin->abi.major == HOOKLINE_ABI_MAJOR,
          "another ABI was accepted");
  require(plugin->abi.size <= plugin->symbol_size && plugin->abi.size >= sizeof(hookline_abi),
          "a size that is none");
  bool inside = false;
  for (const Segment& segment : plugin->segments)
    inside |= plugin->symbol_address >= segment.address &&
              plugin->symbol_address - segment.address <= segment.size &&
              segment.size - (plugin->symbol_address - segment.address) >= plugin->symbol_size;
  require(inside, "the plugin object is not in what is mapped");
  return 0;
}
