// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/slot_peer.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>
#include <stdexcept>
#include <system_error>

#include <hookline/hook_serve.hpp>

#include "tests/bench/must.hpp"
#include "tests/bench/no_device.hpp"
#include "tests/bench/small_plugin.hpp"

namespace hookline::bench {
namespace {

constexpr uint32_t kAnswer = 0x600dcafe;
constexpr hookline_range kPage[] = {{0, HOOKLINE_WANT_READ, 0, 4096}};

int answer(void*, hookline_access* access) {
  access->value = kAnswer;
  return HOOKLINE_HANDLED;
}

[[noreturn]] void serve(vfio_pci_hooks_slot& slot) {
  std::vector<Link> links;
  links.push_back(must(make_link(small_plugin("bench", kPage, answer))));
  const Chain chain = must(build_chain(std::move(links)));
  NoDevice behind;
  const auto device = must(OpenDevice::open(chain, behind, {}));
  RequestServer server(*device, {});
  for (;;) server.watch(slot, std::chrono::seconds(1));
}

}  // namespace

SlotPeer::SlotPeer() {
  void* page = ::mmap(nullptr, sizeof(vfio_pci_hooks_slot), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "a slot");
  slot_ = new (page) vfio_pci_hooks_slot{};
  slot_->watch = VFIO_PCI_HOOKS_WATCH_IDLE;
  pid_ = ::fork();
  if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "a worker");
  if (pid_ > 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  serve(*slot_);
}

SlotPeer::~SlotPeer() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::munmap(slot_, sizeof(*slot_));
}

void SlotPeer::read() {
  const std::atomic_ref<uint32_t> word(slot_->watch);
  ++slot_->seq;
  slot_->op = VFIO_PCI_HOOKS_REQ_READ;
  slot_->index = 0;
  slot_->offset = 8;
  slot_->length = sizeof(kAnswer);
  word.store(VFIO_PCI_HOOKS_WATCH_REQUEST, std::memory_order_release);
  while (word.load(std::memory_order_acquire) != VFIO_PCI_HOOKS_WATCH_ANSWERED) {
  }
  if (slot_->answer_seq != slot_->seq || slot_->answer != VFIO_PCI_HOOKS_HANDLED ||
      std::memcmp(slot_->data, &kAnswer, sizeof(kAnswer)) != 0)
    throw std::runtime_error("the worker's answer is not the plugin's");
  word.store(VFIO_PCI_HOOKS_WATCH_IDLE, std::memory_order_release);
}

}  // namespace hookline::bench
