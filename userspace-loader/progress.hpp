// SPDX-License-Identifier: Apache-2.0
//
// How far a transfer is: on a terminal one line that is rewritten, elsewhere one line per stage.
//
// One thread. No errors: what cannot be written is not missed.
//
//     Progress progress(STDERR_FILENO, "0000:01:10.0", total);
//     progress.stage("saving");
//     progress.add(n);
//     progress.finish();
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace hookline::loader {

/// "512 B", "16.2 KiB", "1.5 GiB"
std::string size_text(uint64_t bytes);
/// "850 µs", "12.3 ms", "4.20 s"
std::string time_text(std::chrono::nanoseconds time);

class Progress {
 public:
  /// `total`: bytes expected; 0: unknown.
  Progress(int fd, std::string title, uint64_t total);
  /// Ends the rewritten line, if there is one.
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void stage(const std::string& name);
  void add(uint64_t bytes);
  void finish();

  uint64_t bytes() const { return bytes_; }
  std::chrono::nanoseconds elapsed() const { return std::chrono::steady_clock::now() - begun_; }
  /// What a terminal shows now.
  std::string line() const;

 private:
  void draw();

  int fd_;
  bool terminal_;
  std::string title_, stage_;
  uint64_t total_, bytes_ = 0;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now(), last_draw_{};
};

}  // namespace hookline::loader
