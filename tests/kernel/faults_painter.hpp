// SPDX-License-Identifier: Apache-2.0
//
// A client that draws in a display's memory without end, on a thread of its own: on pages behind the picture that the fault
// matrix looks at. While the device is in reset it waits, as a guest's processor does.
//
// Thread rule: one thread beside its own; one painter at a time. Errors: throws where nothing is drawn any more.
#pragma once

#include <setjmp.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::kernel_test {

class Painter {
 public:
  static constexpr uint64_t kAt = 512 * 4096, kSize = 64 * 4096;

  explicit Painter(const vfio::Device& device) : canvas_(map(device)) {
    struct sigaction action {};
    action.sa_handler = [](int) { ::siglongjmp(lost_, 1); };
    ::sigaction(SIGBUS, &action, &before_);
    thread_ = std::thread([this] { paint(); });
  }
  ~Painter() {
    stop();
    ::sigaction(SIGBUS, &before_, nullptr);
  }
  Painter(const Painter&) = delete;
  Painter& operator=(const Painter&) = delete;

  /// Until all pages were drawn again.
  void draws_on() const {
    const uint32_t begun = frame_;
    if (!sysfs::wait_until([&] { return frame_ > begun + 1; }, std::chrono::seconds(5)))
      throw std::runtime_error("the painter stands still");
  }
  /// What stands in each page's first word now.
  uint32_t stop() {
    over_ = true;
    if (thread_.joinable()) thread_.join();
    return frame_;
  }

 private:
  static vfio::Mapping map(const vfio::Device& device) {
    auto canvas = device.map(VFIO_PCI_BAR0_REGION_INDEX, kAt, kSize);
    if (!canvas) throw std::runtime_error(canvas.error().text);
    return std::move(*canvas);
  }
  void paint() {
    while (!over_) {
      // Back to here, where memory has gone.
      if (::sigsetjmp(lost_, 1) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (over_) return;
      for (uint64_t at = 0; at < kSize; at += 4096) canvas_.word(at) = frame_ + 1;
      ++frame_;
    }
  }

  static inline thread_local sigjmp_buf lost_;
  struct sigaction before_ {};
  const vfio::Mapping canvas_;
  std::atomic<bool> over_ = false;
  std::atomic<uint32_t> frame_ = 0;
  std::thread thread_;
};

}  // namespace hookline::kernel_test
