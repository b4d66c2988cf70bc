// SPDX-License-Identifier: Apache-2.0
//
// The bochs display behind the model ABI: nothing but translation.
#include <new>

#include <hookline/model.h>

#include "display.hpp"

namespace {

using gpu_bochs::Display;

constexpr uint64_t kVram = 16 << 20;

void* create(const hookline_model_host*, uint32_t) noexcept {
  try {
    return new Display(gpu_bochs::Kind::bochs, kVram);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void destroy(void* self) noexcept {
  delete static_cast<Display*>(self);
}
uint64_t read(void* self, uint32_t bar, uint64_t offset, uint32_t width) noexcept {
  return static_cast<Display*>(self)->read(bar, offset, width);
}
void write(void* self, uint32_t bar, uint64_t offset, uint32_t width, uint64_t value) noexcept {
  static_cast<Display*>(self)->write(bar, offset, width, value);
}
// The function has no reset of its own.
void reset(void*) noexcept {}

}  // namespace

extern "C" const hookline_model hookline_model_v1 = {
    .magic = HOOKLINE_MODEL_MAGIC,
    .size = sizeof(hookline_model),
    .name = "gpu-bochs",
    .vendor = 0x1234,
    .device = 0x1111,
    .vectors = 0,
    .bar_size = {kVram, 0, 4096, 0, 0, 0},
    .create = create,
    .destroy = destroy,
    .read = read,
    .write = write,
    .reset = reset,
    .receive = nullptr,
};
