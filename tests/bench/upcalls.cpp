// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/upcalls.hpp"

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/bench/must.hpp"
#include "tests/support/sysfs.hpp"

namespace hookline::bench {
namespace {

const std::string kInstance = "/sys/kernel/tracing/instances/hookline-bench";

}  // namespace

Upcalls::Upcalls() {
  std::filesystem::create_directory(kInstance);
  must(sysfs::write(kInstance + "/events/vfio_pci_hooks/request/enable", "1"));
}

Upcalls::~Upcalls() {
  std::error_code gone;
  std::filesystem::remove(kInstance, gone);
}

uint64_t Upcalls::count() const {
  std::ifstream trace(kInstance + "/trace");
  if (!trace) throw std::runtime_error(kInstance + "/trace: cannot be read");
  uint64_t requests = 0;
  for (std::string line; std::getline(trace, line);) requests += line.find(" request: ") != std::string::npos;
  return requests;
}

}  // namespace hookline::bench
