// SPDX-License-Identifier: Apache-2.0
//
// The 82576 VF behind the model ABI: nothing but translation.
#include <new>

#include <hookline/model.h>

#include "vf_82576.hpp"

namespace {

using nic82576::Vf;

nic82576::Ports ports_of(const hookline_model_host* host) {
  return {
      .dma_read =
          [host](uint64_t iova, std::span<std::byte> to) {
            return host->dma_read(host->context, iova, to.data(), to.size()) == 0;
          },
      .dma_write =
          [host](uint64_t iova, std::span<const std::byte> from) {
            return host->dma_write(host->context, iova, from.data(), from.size()) == 0;
          },
      .interrupt = [host](uint32_t vector) { host->interrupt(host->context, vector); },
      .transmit =
          [host](std::span<const std::byte> frame) {
            host->transmit(host->context, frame.data(), frame.size());
          },
  };
}

void* create(const hookline_model_host* host, uint32_t) noexcept {
  try {
    return new Vf(ports_of(host));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void destroy(void* self) noexcept {
  delete static_cast<Vf*>(self);
}

// The function decodes aligned 32-bit accesses; a wider one is two of them.
uint64_t read(void* self, uint32_t bar, uint64_t offset, uint32_t width) noexcept {
  auto* vf = static_cast<Vf*>(self);
  if (bar != 0) return 0;
  const auto at = static_cast<uint32_t>(offset);
  if (width == 8) {
    const uint64_t low = vf->read32(at);
    return uint64_t{vf->read32(at + 4)} << 32 | low;
  }
  return vf->read32(at & ~3u) >> 8 * (at & 3) & (~0u >> (32 - 8 * width));
}

void write(void* self, uint32_t bar, uint64_t offset, uint32_t width, uint64_t value) noexcept {
  auto* vf = static_cast<Vf*>(self);
  const auto at = static_cast<uint32_t>(offset);
  if (bar != 0 || width < 4) return;
  vf->write32(at, static_cast<uint32_t>(value));
  if (width == 8) vf->write32(at + 4, static_cast<uint32_t>(value >> 32));
}

void reset(void* self) noexcept {
  static_cast<Vf*>(self)->function_reset();
}

int receive(void* self, const void* frame, size_t length) noexcept {
  return static_cast<Vf*>(self)->receive({static_cast<const std::byte*>(frame), length});
}

}  // namespace

extern "C" const hookline_model hookline_model_v1 = {
    .magic = HOOKLINE_MODEL_MAGIC,
    .size = sizeof(hookline_model),
    .name = "nic-82576",
    .vendor = 0x8086,
    .device = 0x10ca,
    .vectors = nic82576::kVectors,
    .bar_size = {nic82576::kBarSize, 0, 0, 16384, 0, 0},
    .create = create,
    .destroy = destroy,
    .read = read,
    .write = write,
    .reset = reset,
    .receive = receive,
};
