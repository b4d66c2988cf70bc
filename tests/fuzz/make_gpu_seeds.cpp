// SPDX-License-Identifier: Apache-2.0
//
// make_gpu_seeds FOLDER: writes the streams of tests/fuzz/seeds/gpu-state, from the model of a display as it comes out of a
// reset, and in use; and one that a source never sends: a round with an empty list of pages.
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <hookline/fields.hpp>
#include <hookline/stream.hpp>

#include "small_display.hpp"

namespace {

using namespace hookline;

void write(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  std::printf("%s: %zu bytes\n", path.c_str(), bytes.size());
}

std::vector<std::byte> state(bool used) {
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
  return *bytes;
}

struct FirstMatch final : StreamSink {
  Result<void> on_match(std::string_view migration_version) override {
    text = migration_version;
    return {};
  }
  Result<void> on_section(const Section&) override { return {}; }
  Result<void> on_complete() override { return {}; }
  std::string text;
};

std::vector<std::byte> empty_list(std::span<const std::byte> whole) {
  FirstMatch match;
  if (const auto ok = StreamReader(match).write(whole); !ok) throw std::runtime_error(ok.error().text);
  std::vector<std::byte> bytes(4096), section(64);
  FieldWriter fields(section);
  size_t used = 0;
  const auto send = [&](StreamWriter& writer) { used += writer.take(std::span(bytes).subspan(used)); };
  auto writer = StreamWriter::create(match.text).value();
  send(writer);
  const bool made = fields.put("runs", {}) && writer.section("gpu-bochs", {.bulk = true}, fields.bytes());
  send(writer);
  if (!made || !writer.finish()) throw std::runtime_error("no section is written");
  send(writer);
  bytes.resize(used);
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_gpu_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = std::string(argv[1]) + "/gpu-state/";
  write(folder + "reset", state(false));
  write(folder + "used", state(true));
  write(folder + "empty-list", empty_list(state(false)));
}
