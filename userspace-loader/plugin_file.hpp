// SPDX-License-Identifier: Apache-2.0
//
// What can be known of a plugin's file without running anything of it: is it one, for this machine, for this ABI, and may
// it be trusted. A file that is refused here never reaches the dynamic linker.
//
// Thread rule: plain functions on files. Errors: one line for people that opens with the file's name, says what is wrong
// and what to do; ENOEXEC (no plugin, or for another ABI), EPERM (not trusted), or what opening the file failed with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hookline/plugin.h"
#include "hookline/result.hpp"

namespace hookline::loader {

/// A part of the file that the dynamic linker maps.
struct Segment {
  uint64_t address = 0;  ///< before relocation
  uint64_t size = 0;     ///< bytes in memory
};

struct PluginFile {
  std::string path;
  hookline_abi abi = {};        ///< as it stands in the file
  uint64_t symbol_address = 0;  ///< of the plugin object, before relocation
  uint64_t symbol_size = 0;     ///< bytes
  std::vector<Segment> segments;
};

/// Refuses files that somebody else could have written: owned by anybody but root or the caller, or writable for all; the
/// same for the folder they are in.
Result<void> check_trusted(const std::string& path);

/// Reads the ELF file. Accepted: any plugin of ABI major 1 that requires nothing this host lacks.
Result<PluginFile> inspect_plugin_file(const std::string& path);

/// The check of the ABI header alone, the object being `object_size` bytes large.
Result<void> check_abi(const std::string& path, const hookline_abi& abi, uint64_t object_size);

}  // namespace hookline::loader
