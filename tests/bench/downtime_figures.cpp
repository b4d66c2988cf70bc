// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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

constexpr uint64_t kKiB = 1 << 10, kMiB = 1 << 20, kGiB = 1 << 30;
/// Larger ones take a minute a round where instructions are emulated.
constexpr uint64_t kOnceOnly = 64 * kMiB;

struct Size {
  const char* name;
  uint64_t bytes;
};
constexpr Size kSizes[] = {{"4 KiB", 4 * kKiB},   {"64 KiB", 64 * kKiB},   {"1 MiB", kMiB},
                           {"16 MiB", 16 * kMiB}, {"256 MiB", 256 * kMiB}, {"1 GiB", kGiB}};

// From one data file to the other, as a VMM on each host does with a network between; `end`: the errno that
// ends it.
void carry(const vfio::Descriptor& out, const vfio::Descriptor& in, std::span<std::byte> buffer, int end) {
  for (;;) {
    const ssize_t got = ::read(out.get(), buffer.data(), buffer.size());
    if (got == 0 && end == 0) return;
    if (got < 0 && errno == end) return;
    if (got <= 0) throw std::system_error(errno, std::generic_category(), "reading a device state");
    if (::write(in.get(), buffer.data(), static_cast<size_t>(got)) != got)
      throw std::system_error(errno, std::generic_category(), "writing a device state");
  }
}

}  // namespace

Figures downtime(const std::string& vf, const std::string& other_vf, const Plan& plan) {
  Figures figures;
  pin(0, kFirstCpu);
  for (const Size& size : kSizes) {
    if (size.bytes > plan.most_state) continue;
    const ServedDevice source_worker(vf, state_chain(size.bytes)),
        dest_worker(other_vf, state_chain(size.bytes));
    PipePeer pipe(PipePeer::gives);
    auto container = must(vfio::Container::create());
    auto source = must(vfio::Device::open(container, vf));
    auto dest = must(vfio::Device::open(container, other_vf));
    for (const pid_t peer : {source_worker.worker(), dest_worker.worker(), pipe.pid()}) pin(peer, kSecondCpu);
    std::vector<std::byte> buffer(kMiB, std::byte{1});

    std::vector<double> stopped, piped;
    interleave(size.bytes > kOnceOnly ? 1 : plan.rounds,
               {
                   [&] {
                     must(dest.reset());
                     const auto in = must(dest.set_state(VFIO_DEVICE_STATE_RESUMING));
                     const auto out = must(source.set_state(VFIO_DEVICE_STATE_PRE_COPY));
                     carry(out, in, buffer, ENOMSG);
                     stopped.push_back(ns_once([&] {
                       must(source.set_state(VFIO_DEVICE_STATE_STOP_COPY));
                       carry(out, in, buffer, 0);
                       must(source.set_state(VFIO_DEVICE_STATE_STOP));
                       must(dest.set_state(VFIO_DEVICE_STATE_RUNNING));
                     }));
                     must(source.set_state(VFIO_DEVICE_STATE_RUNNING));
                   },
                   [&] {
                     piped.push_back(ns_once([&] {
                       for (uint64_t left = size.bytes; left > 0;) {
                         const uint64_t part = std::min<uint64_t>(left, buffer.size());
                         pipe.move(std::span(buffer).first(part));
                         left -= part;
                       }
                     }));
                   },
               });
    figures.ratios.push_back({fmt::format("device stopped, state of {}", size.name),
                              fmt::format("{} from a 1 MiB pipe", size.name), kCrossCpu.name, stopped,
                              piped});
  }
  return figures;
}

}  // namespace hookline::bench
