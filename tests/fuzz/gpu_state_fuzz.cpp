// SPDX-License-Identifier: Apache-2.0
//
// The state of a bochs display, as a stream that is well-formed but says anything: what the plugin accepts, the device
// runs with and its successor accepts as well; what it refuses leaves a device with nothing in its memory.
#include <algorithm>
#include <memory>

#include "small_display.hpp"
#include "state_fuzz.hpp"
#include "stream_mutator.hpp"

namespace {

using namespace hookline;
using namespace hookline::fuzz;
using enum MigrationState;

std::unique_ptr<SoftwareDevice> make(uint32_t index) {
  auto device = small_display(index);
  require(device.has_value(), "no device");
  return std::move(*device);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return mutate_stream(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto device = make(0);
  if (const Result<void> loaded = load(*device, {reinterpret_cast<const std::byte*>(data), size}); !loaded) {
    require(!loaded.error().text.empty(), "a refusal without a reason");
    device->reset();
    require(device->state() == running, "a reset does not lead to RUNNING");
    require(std::ranges::all_of(small_displays[0]->vram(), [](std::byte b) { return b == std::byte{0}; }),
            "something is left in a display that was reset");
    return 0;
  }
  small_displays[0]->picture();
  require(device->set_state(stop_copy), "what was restored does not stop");
  const auto stream = device->save_all();
  require(stream.has_value(), "what was restored cannot be saved", stream ? "" : stream.error().text);
  auto successor = make(1);
  require(load(*successor, *stream), "the successor refuses what was accepted here");
  require(std::ranges::equal(small_displays[0]->vram(), small_displays[1]->vram()), "memory did not arrive");
  return 0;
}
