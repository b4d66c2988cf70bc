// SPDX-License-Identifier: Apache-2.0
//
// Small files of the host: sysfs attributes and the loader's own state. A file is read whole, written in one write(), or
// replaced as a whole.
//
// Any thread. Errors: the errno of the failing call and a text that names file and call.
//
//     Result<std::string> numvfs = read_line(pf / "sriov_numvfs");
//     if (auto ok = write_attribute(pf / "sriov_numvfs", "4"); !ok) return ok;
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "hookline/result.hpp"

namespace hookline::loader {

/// The whole file without the newline at its end.
Result<std::string> read_line(const std::filesystem::path& file);

/// Opens an existing file and writes `value` with one write(): what sysfs attributes want.
Result<void> write_attribute(const std::filesystem::path& file, std::string_view value);

/// Readers see the old content or the new, never a part, also after a crash. Mode 0644.
Result<void> replace_file(const std::filesystem::path& file, std::string_view content);

}  // namespace hookline::loader
