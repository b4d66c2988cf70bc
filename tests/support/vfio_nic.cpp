// SPDX-License-Identifier: Apache-2.0
#include "tests/support/vfio_nic.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <stdexcept>

namespace hookline::testing {
namespace {

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace

VfioNic::VfioNic(const vfio::Device& device) : device_(device) {
  for (const vfio::Area& area : must(device_.region(0)).mappable())
    areas_.push_back({area, must(device_.map(0, area.offset, area.size))});
  for (auto& vector : vectors_) {
    vector = vfio::Descriptor(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!vector) throw std::runtime_error("eventfd failed");
  }
}

void VfioNic::enable() {
  must(device_.enable_memory_and_dma());
  std::array<int, kVectors> fds;
  for (size_t i = 0; i < kVectors; ++i) fds[i] = vectors_[i].get();
  must(device_.set_msix(fds));
}

const VfioNic::MappedArea* VfioNic::find(uint32_t offset) const {
  for (const MappedArea& area : areas_)
    if (offset >= area.where.offset && offset - area.where.offset < area.where.size) return &area;
  return nullptr;
}

uint32_t VfioNic::read32(uint32_t offset) {
  if (const MappedArea* area = find(offset)) return area->mapping.word(offset - area->where.offset);
  return must(device_.read<uint32_t>(0, offset));
}

void VfioNic::write32(uint32_t offset, uint32_t value) {
  if (const MappedArea* area = find(offset)) {
    area->mapping.word(offset - area->where.offset) = value;
  } else {
    must(device_.write<uint32_t>(0, offset, value));
  }
}

uint32_t VfioNic::wait(std::chrono::microseconds limit) {
  std::array<pollfd, kVectors> polled;
  for (size_t i = 0; i < kVectors; ++i) polled[i] = {vectors_[i].get(), POLLIN, 0};
  const timespec time{limit.count() / 1000000, (limit.count() % 1000000) * 1000};
  ::ppoll(polled.data(), polled.size(), &time, nullptr);
  uint32_t came = 0;
  for (size_t i = 0; i < kVectors; ++i) {
    uint64_t count = 0;
    if (::read(vectors_[i].get(), &count, sizeof count) != sizeof count) continue;
    interrupts_ += count;
    came |= 1u << i;
  }
  return came;
}

}  // namespace hookline::testing
