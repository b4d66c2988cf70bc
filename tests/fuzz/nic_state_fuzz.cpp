// SPDX-License-Identifier: Apache-2.0
//
// The state of an 82576 VF, as a stream that is well-formed but says anything: what the plugin accepts, the
// device runs with and its successor accepts as well; what it refuses leaves a device that a reset brings
// back. DMA stays in the memory of the guest by construction of the model, so what is looked for is crashes,
// undefined behaviour and states that cannot move on.
#include <array>
#include <cerrno>
#include <vector>

#include "state_fuzz.hpp"
#include "stream_mutator.hpp"

namespace {

using namespace hookline;
using namespace hookline::fuzz;
using enum MigrationState;

std::unique_ptr<SoftwareDevice> make(uint32_t index, std::span<std::byte> memory) {
  auto link = make_link(hookline_plugin_v1);
  require(link.has_value(), "no link");
  std::vector<Link> links;
  links.push_back(std::move(*link));
  auto chain = build_chain(std::move(links));
  require(chain.has_value(), "no chain");
  SoftwareDevice::Options options;
  options.index = index;
  options.memory = memory;
  options.grant = SoftwareDevice::Grant::read;
  auto device = SoftwareDevice::create(hookline_model_v1, std::move(*chain), std::move(options));
  require(device.has_value(), "no device");
  return std::move(*device);
}

// What a guest's driver and a wire do to a device that goes on.
void use(SoftwareDevice& device) {
  std::array<std::byte, 64> frame{};
  frame.fill(std::byte{0xff});  // broadcast
  device.receive(frame);
  for (const uint32_t ring : {0x2800u, 0x2900u, 0x3800u, 0x3900u}) {
    const auto tail = device.read32(0, ring + 0x18), length = device.read32(0, ring + 0x08);
    require(tail.has_value() && length.has_value(), "a ring cannot be read");
    // A tail outside of the ring is a driver's mistake, and no successor takes it.
    if (*tail + 1 < *length / 16)
      require(device.write32(0, ring + 0x18, *tail + 1), "a tail cannot be written");
  }
  for (uint32_t at = 0; at < 0x1000; at += 4) device.read32(0, at);  // mailbox and counters among them
  device.receive(frame);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return mutate_stream(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> memory(256 << 10);
  auto device = make(0, memory);
  if (const Result<void> loaded = load(*device, {reinterpret_cast<const std::byte*>(data), size}); !loaded) {
    require(!loaded.error().text.empty(), "a refusal without a reason");
    device->reset();
    require(device->state() == running, "a reset does not lead to RUNNING");
    require(device->set_state(stop_copy), "a device that was reset does not stop");
    const auto fresh = device->save_all();
    require(fresh.has_value(), "a device that was reset does not save", fresh ? "" : fresh.error().text);
    return 0;
  }
  use(*device);
  require(device->set_state(stop_copy), "what was restored does not stop");
  const auto stream = device->save_all();
  require(stream.has_value(), "what was restored cannot be saved", stream ? "" : stream.error().text);
  auto successor = make(1, memory);
  const Result<void> taken = load(*successor, *stream);
  // The plugin gives the model's PF 500 ms of the clock for an answer, more than a busy host may leave it.
  if (!taken && taken.error().code == ETIMEDOUT) return 0;
  require(taken, "the successor refuses what was accepted here");
  return 0;
}
