// SPDX-License-Identifier: Apache-2.0
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstring>
#include <system_error>

#include "tests/bench/device_figures.hpp"
#include "tests/bench/must.hpp"
#include "tests/bench/placement.hpp"
#include "tests/bench/served_device.hpp"
#include "tests/bench/state_plugin.hpp"
#include "tests/bench/upcalls.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::bench {
namespace {

void stop_and_go(const vfio::Device& device) {
  must(device.set_state(VFIO_DEVICE_STATE_STOP));
  must(device.set_state(VFIO_DEVICE_STATE_RUNNING));
}

// A migration of the empty plugin to itself.
void move(const vfio::Device& device) {
  std::byte bytes[4096];
  size_t length = 0;
  {
    const auto out = must(device.set_state(VFIO_DEVICE_STATE_STOP_COPY));
    for (ssize_t got; (got = ::read(out.get(), bytes + length, sizeof bytes - length)) != 0;) {
      if (got < 0) throw std::system_error(errno, std::generic_category(), "reading an empty state");
      length += static_cast<size_t>(got);
    }
  }
  const auto in = must(device.set_state(VFIO_DEVICE_STATE_RESUMING));
  if (::write(in.get(), bytes, length) != static_cast<ssize_t>(length))
    throw std::system_error(errno, std::generic_category(), "writing an empty state");
  must(device.set_state(VFIO_DEVICE_STATE_RUNNING));
}

void ask(int fd, unsigned long request, void* argument, const char* what) {
  if (::ioctl(fd, request, argument) != 0) throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

Figures state_changes(const std::string& vf, const std::string& other_vf, const Plan& plan) {
  const ServedDevice served(vf, state_chain(0));
  // Nobody attaches: state changes wait for no worker.
  const DefinedDevice in_kernel(other_vf, state_chain(0), {"sample-a", VFIO_PCI_HOOKS_CHANNEL_NAME});
  auto container = must(vfio::Container::create());
  auto plugin = must(vfio::Device::open(container, vf));
  auto handler = must(vfio::Device::open(container, other_vf));
  const char* anchor = "RUNNING, STOP, RUNNING, handler in the kernel";
  pin(0, kFirstCpu);

  Figures figures;
  for (const Placement& placement : kPlacements) {
    pin(served.worker(), placement.peer_cpu);
    std::vector<double> with_worker, without;
    interleave(
        plan.rounds,
        {
            [&] { with_worker.push_back(ns_per_operation(plan.effort, [&] { stop_and_go(plugin); })); },
            [&] { without.push_back(ns_per_operation(plan.effort, [&] { stop_and_go(handler); })); },
        });
    figures.ratios.push_back(
        {"RUNNING, STOP, RUNNING, empty plugin", anchor, placement.name, with_worker, without});
  }

  const Upcalls upcalls;
  stop_and_go(handler);
  const uint64_t by_handler = upcalls.count();
  stop_and_go(plugin);
  const uint64_t by_plugin = upcalls.count() - by_handler;
  move(plugin);
  const uint64_t by_migration = upcalls.count() - by_handler - by_plugin;
  if (by_migration == 0) throw std::runtime_error("a migration without a request to the worker was counted");
  figures.counts = {
      {"requests to the worker, RUNNING, STOP, RUNNING, empty plugin", anchor, by_plugin, by_handler},
      {"requests to the worker, whole migration, empty plugin", anchor, by_migration, by_handler}};
  return figures;
}

Figures size_questions(const std::string& vf, const Plan& plan) {
  const ServedDevice served(vf, state_chain(1 << 20));
  auto container = must(vfio::Container::create());
  auto device = must(vfio::Device::open(container, vf));
  const auto data = must(device.set_state(VFIO_DEVICE_STATE_PRE_COPY));
  pin(0, kFirstCpu);
  pin(served.worker(), kSecondCpu);

  constexpr size_t kHeader = sizeof(vfio_device_feature);
  alignas(vfio_device_feature) std::byte question[kHeader + sizeof(vfio_device_feature_mig_data_size)];
  const auto data_size = [&] {
    const uint32_t header[] = {sizeof question, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE};
    static_assert(sizeof header == kHeader);
    std::memcpy(question, header, kHeader);
    ask(device.fd(), VFIO_DEVICE_FEATURE, question, "MIG_DATA_SIZE");
  };
  const auto precopy = [&] {
    vfio_precopy_info info{};
    info.argsz = sizeof info;
    ask(data.get(), VFIO_MIG_GET_PRECOPY_INFO, &info, "GET_PRECOPY_INFO");
  };
  std::vector<double> bare_data, bare_device, info, size;
  const auto times = [&](std::vector<double>& into, auto operation) {
    return [&plan, &into, operation] { into.push_back(ns_per_operation(plan.effort, operation)); };
  };
  interleave(plan.rounds, {
                              times(bare_data, [&] { ask(data.get(), FIOCLEX, nullptr, "FIOCLEX"); }),
                              times(bare_device, [&] { ask(device.fd(), FIOCLEX, nullptr, "FIOCLEX"); }),
                              times(info, precopy),
                              times(size, data_size),
                          });
  return {{{"GET_PRECOPY_INFO", "FIOCLEX of the data file", "one CPU", info, bare_data},
           {"MIG_DATA_SIZE", "FIOCLEX of the device", "one CPU", size, bare_device}},
          {}};
}

}  // namespace hookline::bench
