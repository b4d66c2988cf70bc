// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>

namespace hookline::loader {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);

void put(int fd, const std::string& text) { (void)!::write(fd, text.data(), text.size()); }

}  // namespace

std::string size_text(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  double size = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (size >= 1024 && unit + 1 < std::size(kUnits)) {
    size /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", size, kUnits[unit]);
}

std::string time_text(std::chrono::nanoseconds time) {
  const double ns = static_cast<double>(time.count());
  if (ns < 1e6) return fmt::format("{:.0f} µs", ns / 1e3);
  if (ns < 1e9) return fmt::format("{:.1f} ms", ns / 1e6);
  return fmt::format("{:.2f} s", ns / 1e9);
}

Progress::Progress(int fd, std::string title, uint64_t total)
    : fd_(fd), terminal_(::isatty(fd) == 1), title_(std::move(title)), total_(total) {}

void Progress::stage(const std::string& name) {
  if (name == stage_) return;
  stage_ = name;
  if (terminal_)
    draw();
  else
    put(fd_, fmt::format("{}: {}\n", title_, stage_));
}

void Progress::add(uint64_t bytes) {
  bytes_ += bytes;
  if (terminal_ && std::chrono::steady_clock::now() - last_draw_ >= kRedraw) draw();
}

void Progress::finish() {
  if (drawn_) put(fd_, "\n");
  drawn_ = false;
}

std::string Progress::line() const {
  std::string text = fmt::format("{}: {}", title_, stage_);
  if (bytes_ > 0) text += fmt::format(" {}", size_text(bytes_));
  // The total is an upper bound: there is no 100 % to reach.
  if (total_ > 0 && bytes_ > 0) text += fmt::format(" of at most {}", size_text(std::max(total_, bytes_)));
  return text;
}

void Progress::draw() {
  put(fd_, "\r\033[K" + line());
  drawn_ = true;
  last_draw_ = std::chrono::steady_clock::now();
}

}  // namespace hookline::loader
