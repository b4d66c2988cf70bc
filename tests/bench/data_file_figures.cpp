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
constexpr Piece kPieces[] = {{"4 KiB", 4 << 10}, {"64 KiB", 64 << 10}, {"1 MiB", 1 << 20}};

struct Times {
  std::vector<double> save, load, from_pipe, into_pipe, copy;
};

void in_pieces(std::span<std::byte> bytes, size_t piece, auto move) {
  for (size_t at = 0; at < bytes.size(); at += piece) move(bytes.subspan(at, std::min(piece, bytes.size() - at)));
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

}  // namespace

// Each turn moves a whole stream, and so many bytes through the pipe and memcpy. The state goes back to the device it
// came from.
Figures data_file(const std::string& vf, const Plan& plan) {
  const uint64_t state = std::min(kMost, plan.most_state);
  const ServedDevice served(vf, state_chain(state));
  PipePeer gives(PipePeer::gives), takes(PipePeer::takes);
  auto container = must(vfio::Container::create());
  auto device = must(vfio::Device::open(container, vf));
  // More than any stream of this state has.
  std::vector<std::byte> buffer(state + state / 4 + 65536, std::byte{1}), other(buffer.size(), std::byte{2});
  pin(0, kFirstCpu);

  Figures figures;
  for (const Placement& placement : kPlacements) {
    for (const pid_t peer : {served.worker(), gives.pid(), takes.pid()}) pin(peer, placement.peer_cpu);
    for (const Piece& piece : kPieces) {
      Times times;
      size_t length = 0;
      const auto there_and_back = [&] {
        {
          const auto out = must(device.set_state(VFIO_DEVICE_STATE_STOP_COPY));
          times.save.push_back(ns_once([&] { length = save(out.get(), buffer, piece.bytes); }));
        }
        const auto in = must(device.set_state(VFIO_DEVICE_STATE_RESUMING));
        times.load.push_back(ns_once([&] { load(in.get(), std::span(buffer).first(length), piece.bytes); }));
        must(device.set_state(VFIO_DEVICE_STATE_RUNNING));
      };
      there_and_back();  // pages of all buffers, and the stream's length
      times = {};
      const auto through = [&](PipePeer& pipe) {
        in_pieces(std::span(other).first(length), piece.bytes, [&](std::span<std::byte> part) { pipe.move(part); });
      };
      interleave(plan.rounds,
                 {
                     there_and_back,
                     [&] { times.from_pipe.push_back(ns_once([&] { through(gives); })); },
                     [&] { times.into_pipe.push_back(ns_once([&] { through(takes); })); },
                     [&] {
                       times.copy.push_back(ns_once([&] {
                         std::byte* to = other.data();
                         in_pieces(std::span(buffer).first(length), piece.bytes, [&](std::span<std::byte> part) {
                           std::memcpy(to, part.data(), part.size());
                           to += part.size();
                         });
                       }));
                     },
                 });
      const auto add = [&](std::string what, std::string anchor, const auto& ns, const auto& anchor_ns) {
        figures.ratios.push_back({fmt::format("{}, {} a call", what, piece.name),
                                  fmt::format("{}, {} a call", anchor, piece.name), placement.name, ns, anchor_ns,
                                  static_cast<double>(length)});
      };
      add("save", "read of a 1 MiB pipe", times.save, times.from_pipe);
      add("load", "write to a 1 MiB pipe", times.load, times.into_pipe);
      add("save", "memcpy", times.save, times.copy);
      add("load", "memcpy", times.load, times.copy);
    }
  }
  return figures;
}

}  // namespace hookline::bench
