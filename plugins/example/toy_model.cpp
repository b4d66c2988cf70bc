// SPDX-License-Identifier: Apache-2.0
//
// The toy device of example.cpp in software: a model to copy. It does what the hardware would, what is
// inconvenient included, and knows nothing of migration.
#include <new>

#include <hookline/model.h>

namespace {

constexpr uint32_t kCtrl = 0x00, kStatus = 0x04, kMode = 0x08, kReset = 0x0c;
constexpr uint32_t kBase = 0x1000, kCount = 0x1004, kHead = 0x1008, kTail = 0x100c;

struct Toy {
  const hookline_model_host* host;
  uint32_t ctrl = 0, mode = 0, base = 0, count = 0, head = 0, tail = 0;

  // Slot i becomes mode * 1000 + i; one interrupt for each run.
  void fill() {
    if (!(ctrl & 1) || head == tail || count == 0 || tail >= count) return;
    while (head != tail) {
      const uint32_t value = mode * 1000 + head;
      host->dma_write(host->context, base + uint64_t{4} * head, &value, sizeof(value));
      head = (head + 1) % count;
    }
    host->interrupt(host->context, 0);
  }
};

void* create(const hookline_model_host* host, uint32_t) noexcept {
  return new (std::nothrow) Toy{host};
}
void destroy(void* self) noexcept {
  delete static_cast<Toy*>(self);
}
void reset(void* self) noexcept {
  auto* toy = static_cast<Toy*>(self);
  *toy = Toy{toy->host};
}

uint64_t read(void* self, uint32_t, uint64_t offset, uint32_t) noexcept {
  const auto* toy = static_cast<const Toy*>(self);
  switch (offset) {
    case kCtrl:
      return toy->ctrl;
    case kStatus:
      return toy->ctrl & 1 ? 0 : 1;
    case kBase:
      return toy->base;
    case kCount:
      return toy->count;
    case kHead:
      return toy->head;
    case kTail:
      return toy->tail;
    default:
      return 0;  // MODE among them
  }
}

void write(void* self, uint32_t, uint64_t offset, uint32_t, uint64_t wide) noexcept {
  auto* toy = static_cast<Toy*>(self);
  const auto value = static_cast<uint32_t>(wide);
  switch (offset) {
    case kCtrl:
      toy->ctrl = value & 1;
      break;
    case kMode:
      toy->mode = value & 3;
      break;
    case kReset:
      if (value & 1) reset(self);
      return;
    case kBase:
      toy->base = value & ~3u;
      break;
    case kCount:
      toy->count = value <= 256 ? value : 256;
      break;
    case kHead:
      toy->head = toy->count ? value % toy->count : 0;
      break;
    case kTail:
      toy->tail = value;
      break;
    default:
      return;
  }
  if (offset == kTail || offset == kCtrl) toy->fill();
}

}  // namespace

extern "C" const hookline_model hookline_model_v1 = {
    .magic = HOOKLINE_MODEL_MAGIC,
    .size = sizeof(hookline_model),
    .name = "example",
    .vendor = 0x1234,
    .device = 0x0001,
    .vectors = 1,
    .bar_size = {0x2000},
    .create = create,
    .destroy = destroy,
    .read = read,
    .write = write,
    .reset = reset,
    .receive = nullptr,
};
