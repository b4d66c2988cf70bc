// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/slice_peer.hpp"

#include <linux/vfio_pci_hooks.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>

#include <hookline/stream.hpp>

#include "tests/bench/must.hpp"

namespace hookline::bench {
namespace {

constexpr size_t kSlice = VFIO_PCI_HOOKS_STREAM_SLICE, kSlices = VFIO_PCI_HOOKS_STREAM_SLICES;
constexpr size_t kPayload = kSlice - 4096;
constexpr size_t kSections = 16;

std::system_error failed(const char* what) {
  return std::system_error(errno, std::generic_category(), what);
}

void wait(sem_t& semaphore) {
  while (::sem_wait(&semaphore) != 0)
    if (errno != EINTR) throw failed("waiting for a slice");
}

class Ignore final : public StreamSink {
 public:
  Result<void> on_match(std::string_view) override { return {}; }
  Result<void> on_section(const Section&) override { return {}; }
  Result<void> on_complete() override { return {}; }
};

}  // namespace

// Full slices go to whoever empties them, free ones back.
struct SlicePeer::Window {
  sem_t full, free;
  size_t lengths[kSlices];
  alignas(4096) std::byte slices[kSlices][kSlice];
};

SlicePeer::SlicePeer(Role role) : role_(role) {
  void* at = ::mmap(nullptr, sizeof(Window), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (at == MAP_FAILED) throw failed("the slices");
  window_ = static_cast<Window*>(at);
  ::sem_init(&window_->full, 1, 0);
  ::sem_init(&window_->free, 1, role == saves ? kSlices : 0);
  pid_ = ::fork();
  if (pid_ < 0) throw failed("a worker");
  if (pid_ > 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  role == saves ? save() : load();
}

SlicePeer::~SlicePeer() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::munmap(window_, sizeof(Window));
}

std::vector<std::byte> SlicePeer::stream() {
  const std::vector<std::byte> state(kPayload, std::byte{0x5a});
  std::vector<std::byte> bytes;
  StreamWriter writer = must(StreamWriter::create("bench"));
  const auto take = [&] {
    const size_t end = bytes.size();
    bytes.resize(end + writer.pending());
    writer.take(std::span(bytes).subspan(end));
  };
  take();
  for (size_t i = 0; i < kSections; ++i) {
    must(writer.section("bench", {.bulk = true}, state));
    take();
  }
  must(writer.finish());
  take();
  return bytes;
}

// Both never return: the process is killed.
void SlicePeer::save() {
  const std::vector<std::byte> state(kPayload, std::byte{0x5a});
  StreamWriter writer = must(StreamWriter::create("bench"));
  for (size_t i = 0;; i = (i + 1) % kSlices) {
    wait(window_->free);
    window_->lengths[i] = kSlice;
    for (size_t filled = 0; filled < kSlice;) {
      if (writer.pending() == 0) must(writer.section("bench", {.bulk = true}, state));
      filled += writer.take(std::span(window_->slices[i]).subspan(filled));
    }
    ::sem_post(&window_->full);
  }
}

void SlicePeer::load() {
  Ignore sink;
  constexpr StreamLimits limits{.max_state = uint64_t{1} << 40, .max_kept = 0};
  std::optional<StreamReader> reader;
  for (size_t i = 0;; i = (i + 1) % kSlices) {
    wait(window_->full);
    if (!reader) reader.emplace(sink, limits);
    must(reader->write(std::span(window_->slices[i]).first(window_->lengths[i])));
    if (reader->complete()) reader.reset();
    ::sem_post(&window_->free);
  }
}

void SlicePeer::move(std::span<std::byte> buffer) {
  size_t waited_for = 0;
  for (size_t i = 0; !buffer.empty(); ++i, next_ = (next_ + 1) % kSlices) {
    size_t& length = window_->lengths[next_];
    if (role_ == saves) {
      wait(window_->full);
      std::memcpy(buffer.data(), window_->slices[next_], std::min(length, buffer.size()));
      ::sem_post(&window_->free);
    } else {
      if (i >= kSlices) wait(window_->free), ++waited_for;
      length = std::min(kSlice, buffer.size());
      std::memcpy(window_->slices[next_], buffer.data(), length);
      ::sem_post(&window_->full);
    }
    buffer = buffer.subspan(std::min(length, buffer.size()));
    if (role_ == loads && buffer.empty())
      while (waited_for++ <= i) wait(window_->free);
  }
}

}  // namespace hookline::bench
