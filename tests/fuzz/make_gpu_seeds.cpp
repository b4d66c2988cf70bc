// SPDX-License-Identifier: Apache-2.0
//
// make_gpu_seeds FOLDER: writes the streams of tests/fuzz/seeds/gpu-state, from the model of a display as it comes out of a
// reset, and in use.
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "small_display.hpp"

namespace {

using namespace hookline;

void put(const std::string& path, bool used) {
  auto device = fuzz::small_display(0);
  if (!device) throw std::runtime_error(device.error().text);
  if (used) {
    gpu_bochs::Display& display = *fuzz::small_displays[0];
    display.write(2, 0x500 + 2 * gpu_bochs::kXres, 2, 64);
    display.write(2, 0x500 + 2 * gpu_bochs::kYres, 2, 64);
    display.write(2, 0x500 + 2 * gpu_bochs::kBpp, 2, 8);
    display.write(2, 0x500 + 2 * gpu_bochs::kEnable, 2, 1);
    for (const uint64_t page : {1, 2, 9}) display.write(0, page * 4096 + 8, 8, 0x0123456789abcdef);
  }
  if (const auto ok = (*device)->set_state(MigrationState::stop_copy); !ok) throw std::runtime_error(ok.error().text);
  const auto bytes = (*device)->save_all();
  if (!bytes) throw std::runtime_error(bytes.error().text);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes->data()), static_cast<std::streamsize>(bytes->size()));
  std::printf("%s: %zu bytes\n", path.c_str(), bytes->size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_gpu_seeds FOLDER\n");
    return 2;
  }
  put(std::string(argv[1]) + "/gpu-state/reset", false);
  put(std::string(argv[1]) + "/gpu-state/used", true);
}
