// SPDX-License-Identifier: Apache-2.0
//
// The state of a bochs display, as a stream that is well-formed but says anything: what the plugin accepts, the device
// runs with and its successor accepts as well; what it refuses leaves a device with nothing in its memory.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "small_display.hpp"
#include "stream_mutator.hpp"

namespace {

using namespace hookline;
using enum MigrationState;

void require(bool holds, const char* what, const std::string& why = {}) {
  if (holds) return;
  std::fprintf(stderr, "gpu_state_fuzz: %s: %s\n", what, why.c_str());
  std::abort();
}
void require(const Result<void>& result, const char* what) {
  require(result.has_value(), what, result ? "" : result.error().text);
}

std::unique_ptr<SoftwareDevice> make(uint32_t index) {
  auto device = fuzz::small_display(index);
  require(device.has_value(), "no device");
  return std::move(*device);
}

Result<void> load(SoftwareDevice& device, std::span<const std::byte> stream) {
  require(device.set_state(resuming), "RESUMING");
  if (const Result<void> ok = device.write_state(stream); !ok) return ok;
  return device.set_state(running);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return fuzz::mutate_stream(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto device = make(0);
  if (const Result<void> loaded = load(*device, {reinterpret_cast<const std::byte*>(data), size}); !loaded) {
    require(!loaded.error().text.empty(), "a refusal without a reason");
    device->reset();
    require(device->state() == running, "a reset does not lead to RUNNING");
    require(std::ranges::all_of(fuzz::small_displays[0]->vram(), [](std::byte b) { return b == std::byte{0}; }),
            "something is left in a display that was reset");
    return 0;
  }
  fuzz::small_displays[0]->picture();
  require(device->set_state(stop_copy), "what was restored does not stop");
  const auto stream = device->save_all();
  require(stream.has_value(), "what was restored cannot be saved", stream ? "" : stream.error().text);
  auto successor = make(1);
  require(load(*successor, *stream), "the successor refuses what was accepted here");
  require(std::ranges::equal(fuzz::small_displays[0]->vram(), fuzz::small_displays[1]->vram()), "memory did not arrive");
  return 0;
}
