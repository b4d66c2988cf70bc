// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <system_error>

#include <fmt/format.h>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/pipe_peer.hpp"
#include "tests/bench/placement.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/bench/state_plugin.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

constexpr uint64_t kMost = 16 << 20;

struct Piece {
  const char* name;
  size_t bytes;
};
// QEMU reads up to 1 MiB at a time, and without multifd writes at most 32 KiB.
constexpr Piece kPieces[] = {
    {"4 KiB", 4 << 10}, {"32 KiB", 32 << 10}, {"64 KiB", 64 << 10}, {"1 MiB", 1 << 20}};

void in_pieces(std::span<std::byte> bytes, size_t piece, auto move) {
  for (size_t at = 0; at < bytes.size(); at += piece)
    move(bytes.subspan(at, std::min(piece, bytes.size() - at)));
}

// The stream's length.
size_t save(int fd, std::span<std::byte> bytes, size_t piece) {
  size_t length = 0;
  for (;;) {
    const ssize_t got = ::read(fd, bytes.data() + length, std::min(piece, bytes.size() - length));
    if (got < 0) throw std::system_error(errno, std::generic_category(), "reading a data file");
    if (got == 0) return length;
    length += static_cast<size_t>(got);
  }
}

void load(int fd, std::span<std::byte> bytes, size_t piece) {
  in_pieces(bytes, piece, [&](std::span<std::byte> part) {
    if (::write(fd, part.data(), part.size()) != static_cast<ssize_t>(part.size()))
      throw std::system_error(errno, std::generic_category(), "writing a data file");
  });
}

// A device, and its state on the way there and back.
class Stream {
 public:
  Stream(const std::string& vf, const vfio::Container& container, std::span<std::byte> buffer)
      : device_(must(vfio::Device::open(container, vf))), buffer_(buffer) {}

  void there_and_back(size_t piece) {
    {
      const auto out = must(device_.set_state(VFIO_DEVICE_STATE_STOP_COPY));
      saved.push_back(ns_once([&] { length = save(out.get(), buffer_, piece); }));
    }
    const auto in = must(device_.set_state(VFIO_DEVICE_STATE_RESUMING));
    loaded.push_back(ns_once([&] { load(in.get(), buffer_.first(length), piece); }));
    must(device_.set_state(VFIO_DEVICE_STATE_RUNNING));
  }

  size_t length = 0;
  std::vector<double> saved, loaded;

 private:
  vfio::Device device_;
  std::span<std::byte> buffer_;
};

}  // namespace

// Each turn moves a whole stream, and as many bytes through the pipe and memcpy. The state goes back to the
// device it came from.
Figures data_file(const std::string& vf, const std::string& other_vf, const Plan& plan) {
  const uint64_t state = std::min(kMost, plan.most_state);
  const ServedDevice library(vf, state_chain(state)),
      transport(other_vf, state_chain(state), Worker::transport);
  PipePeer gives(PipePeer::gives), takes(PipePeer::takes);
  auto container = must(vfio::Container::create());
  // More than any stream of this state has.
  std::vector<std::byte> buffer(state + state / 4 + 65536, std::byte{1}), other(buffer.size(), std::byte{2});
  pin(0, kFirstCpu);

  Figures figures;
  for (const Placement& placement : kPlacements) {
    for (const pid_t peer : {library.worker(), transport.worker(), gives.pid(), takes.pid()})
      pin(peer, placement.peer_cpu);
    for (const Piece& piece : kPieces) {
      Stream whole(vf, container, buffer), bare(other_vf, container, buffer);
      for (Stream* stream : {&whole, &bare}) {
        stream->there_and_back(piece.bytes);  // touches all buffers, and tells the stream's length
        stream->saved.clear();
        stream->loaded.clear();
      }
      const std::span<std::byte> bytes = std::span(other).first(whole.length);
      std::vector<double> from_pipe, into_pipe, copied;
      const auto through = [&](PipePeer& pipe) {
        in_pieces(bytes, piece.bytes, [&](std::span<std::byte> part) { pipe.move(part); });
      };
      const auto copy = [&] {
        const std::byte* from = buffer.data();
        in_pieces(bytes, piece.bytes, [&](std::span<std::byte> part) {
          std::memcpy(part.data(), from, part.size());
          from += part.size();
        });
      };
      interleave(plan.rounds, {
                                  [&] { whole.there_and_back(piece.bytes); },
                                  [&] { bare.there_and_back(piece.bytes); },
                                  [&] { from_pipe.push_back(ns_once([&] { through(gives); })); },
                                  [&] { into_pipe.push_back(ns_once([&] { through(takes); })); },
                                  [&] { copied.push_back(ns_once(copy)); },
                              });
      const auto add = [&](const char* what, const char* anchor, const auto& ns, const auto& anchor_ns) {
        figures.ratios.push_back({fmt::format("{}, {} a call", what, piece.name),
                                  fmt::format("{}, {} a call", anchor, piece.name), placement.name, ns,
                                  anchor_ns, static_cast<double>(whole.length)});
      };
      add("save", "read of a 1 MiB pipe", whole.saved, from_pipe);
      add("save, bytes lie ready", "read of a 1 MiB pipe", bare.saved, from_pipe);
      add("load", "write to a 1 MiB pipe", whole.loaded, into_pipe);
      add("load, nobody looks at the bytes", "write to a 1 MiB pipe", bare.loaded, into_pipe);
      add("save", "memcpy", whole.saved, copied);
      add("load", "memcpy", whole.loaded, copied);
    }
  }
  return figures;
}

}  // namespace hookline::bench
