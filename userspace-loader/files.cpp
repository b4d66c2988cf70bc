// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/core.h>
#include <hookline/hook_channel.hpp>

namespace hookline::loader {
namespace {

tl::unexpected<Error> failed(const char* what, const std::filesystem::path& file) {
  const int code = errno;
  return fail(code, fmt::format("cannot {} {}: {}", what, file.string(), std::strerror(code)));
}

}  // namespace

Result<std::string> read_line(const std::filesystem::path& file) {
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return failed("open", file);
  std::string content;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("read", file);
    if (n == 0) break;
    content.append(buffer, static_cast<size_t>(n));
  }
  while (!content.empty() && content.back() == '\n') content.pop_back();
  return content;
}

Result<void> write_attribute(const std::filesystem::path& file, std::string_view value) {
  const FileDescriptor fd(::open(file.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  if (fd.get() < 0) return failed("open", file);
  if (::write(fd.get(), value.data(), value.size()) < 0) {
    const int code = errno;
    return fail(code, fmt::format("cannot write \"{}\" to {}: {}", value, file.string(), std::strerror(code)));
  }
  return {};
}

Result<void> replace_file(const std::filesystem::path& file, std::string_view content) {
  std::string temporary = file.string() + ".XXXXXX";
  FileDescriptor fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (fd.get() < 0) return failed("create", temporary);
  const auto give_up = [&](const char* what) {
    auto error = failed(what, file);
    ::unlink(temporary.c_str());
    return error;
  };
  while (!content.empty()) {
    const ssize_t n = ::write(fd.get(), content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return give_up("write");
    content.remove_prefix(static_cast<size_t>(n));
  }
  if (::fchmod(fd.get(), 0644) < 0 || ::fsync(fd.get()) < 0) return give_up("write");
  if (::rename(temporary.c_str(), file.c_str()) < 0) return give_up("replace");
  return {};
}

}  // namespace hookline::loader
