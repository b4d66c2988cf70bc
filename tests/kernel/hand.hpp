// SPDX-License-Identifier: Apache-2.0
//
// The test as a worker of which each step is the test's own: what it asks the kernel for, and when. Worker (hooks.hpp) is a process
// that serves by itself; this one brings about orders of events that no such process comes to.
//
// Thread rule: calls of the session may come from several threads, begin() and end() from one. Errors: calls return 0 or a positive
// errno; what must not fail in a test throws.
//
//     Hand hand(control, vf);
//     const Guest guest(container, vf);
//     hand.begin();
//     const int32_t slot = hand.request(VFIO_PCI_HOOKS_REQ_READ);  // another thread of the test reads
//     hand.answer(slot, VFIO_PCI_HOOKS_PASS);
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {

[[noreturn]] inline void raise(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

class Hand {
 public:
  Hand(const Control& control, const std::string& address) : channel_(control.attach(address)) {
    if (!channel_) throw std::runtime_error("attach " + address);
  }
  void begin() {
    vfio_pci_hooks_wait_open open{};
    open.argsz = sizeof open;
    if (::ioctl(channel_.get(), VFIO_PCI_HOOKS_WAIT_OPEN, &open) != 0) raise("WAIT_OPEN");
    session_ = vfio::Descriptor(open.fd);
    slots_.emplace(map(VFIO_PCI_HOOKS_SLOTS * sizeof(vfio_pci_hooks_slot), VFIO_PCI_HOOKS_MMAP_SLOTS),
                   VFIO_PCI_HOOKS_SLOTS * sizeof(vfio_pci_hooks_slot));
  }
  /// What comes next, an answer handed over first; errno.
  int next(vfio_pci_hooks_next& next, int timeout_ms, int32_t answered = VFIO_PCI_HOOKS_NO_SLOT) const {
    if (early_ && answered == VFIO_PCI_HOOKS_NO_SLOT) {
      next = *std::exchange(early_, std::nullopt);
      return 0;
    }
    next = {};
    next.argsz = sizeof next;
    next.answered = answered;
    next.timeout_ms = timeout_ms;
    return call(VFIO_PCI_HOOKS_NEXT, &next);
  }
  /// The slot of the next request of this kind; events are heard on the way.
  int32_t request(uint32_t op) const {
    vfio_pci_hooks_next got{};
    while (next(got, 5000) == 0)
      if (got.what == VFIO_PCI_HOOKS_NEXT_REQUEST) {
        EXPECT_EQ(slot(got.slot).op, op);
        return got.slot;
      }
    throw std::runtime_error("no request came");
  }
  void fill(int32_t at, uint32_t length, int32_t value = 0, uint32_t flags = 0) const {
    vfio_pci_hooks_slot& mailbox = slot(at);
    mailbox.answer_seq = mailbox.seq;
    mailbox.answer = value;
    mailbox.answer_length = length;
    mailbox.answer_flags = flags;
  }
  int answer(int32_t at, int32_t value, uint32_t flags = 0) const {
    fill(at, slot(at).length, value, flags);
    return hand_over(at);
  }
  /// The answer that fill() has written.
  int hand_over(int32_t at) const {
    vfio_pci_hooks_next got{};
    const int error = next(got, 0, at);
    if (error == 0) early_ = got;
    return error == ETIME ? 0 : error;
  }
  /// So many slices of the stream buffer, as older workers have one.
  void map_stream(unsigned slices) {
    const size_t size = slices * size_t{VFIO_PCI_HOOKS_STREAM_SLICE};
    stream_.emplace(map(size, VFIO_PCI_HOOKS_MMAP_STREAM), size);
  }
  std::span<std::byte> stream() const { return {static_cast<std::byte*>(stream_->address()), stream_->size()}; }
  uint64_t offset(int32_t at) const { return slot(at).offset; }
  /// Whether another request waits; events are heard on the way.
  bool is_asked() const {
    vfio_pci_hooks_next got{};
    int error = 0;
    while ((error = next(got, 200)) == 0 && got.what == VFIO_PCI_HOOKS_NEXT_EVENT) {
    }
    return error == 0;
  }
  /// What poll() says within this time: NEXT would tell something.
  bool is_ready(std::chrono::milliseconds limit = {}) const {
    pollfd ready{session_.get(), POLLIN, 0};
    return ::poll(&ready, 1, static_cast<int>(limit.count())) == 1 && (ready.revents & POLLIN);
  }
  int rw(unsigned long which, uint32_t flags, uint32_t region, uint64_t offset, void* data, uint32_t length) const {
    vfio_pci_hooks_rw rw{};
    rw.argsz = sizeof rw;
    rw.flags = flags;
    rw.region = region;
    rw.length = length;
    rw.offset = offset;
    rw.data = reinterpret_cast<uintptr_t>(data);
    return call(which, &rw);
  }
  int write32(uint64_t offset, uint32_t value) const {
    return rw(VFIO_PCI_HOOKS_REGION_RW, VFIO_PCI_HOOKS_RW_WRITE, 0, offset, &value, sizeof value);
  }
  int read32(uint64_t offset) const {
    uint32_t value = 0;
    return rw(VFIO_PCI_HOOKS_REGION_RW, 0, 0, offset, &value, sizeof value);
  }
  int start_once(const vfio_pci_hooks_step& step) const {
    vfio_pci_hooks_start_once once{};
    once.argsz = sizeof once;
    once.program = {1, 0, reinterpret_cast<uintptr_t>(&step)};
    return call(VFIO_PCI_HOOKS_START_ONCE, &once);
  }
  int map_bar(uint64_t offset) const {
    void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, session_.get(), static_cast<off_t>(offset));
    if (at == MAP_FAILED) return errno;
    ::munmap(at, kPage);
    return 0;
  }
  void end() {
    early_.reset();
    stream_.reset();
    slots_.reset();
    session_.reset();
  }
  void detach() { channel_.reset(); }

 protected:
  /// Of the session; errno.
  int call(unsigned long which, void* with) const { return ::ioctl(session_.get(), which, with) == 0 ? 0 : errno; }
  void* map(size_t size, uint64_t offset) const {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, session_.get(), static_cast<off_t>(offset));
    if (at == MAP_FAILED) raise("mmap of the session");
    return at;
  }
  vfio_pci_hooks_slot& slot(int32_t at) const { return static_cast<vfio_pci_hooks_slot*>(slots_->address())[at]; }

 private:
  vfio::Descriptor channel_, session_;
  std::optional<vfio::Mapping> slots_, stream_;
  mutable std::optional<vfio_pci_hooks_next> early_;  // fetched by a call that was to answer only
};

}  // namespace hookline::kernel_test
