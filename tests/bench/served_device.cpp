// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/served_device.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <span>
#include <stdexcept>

#include <fmt/format.h>
#include <hookline/hook_serve.hpp>
#include <hookline/open_device.hpp>

#include "tests/bench/must.hpp"
#include "tests/bench/small_plugin.hpp"
#include "tests/support/sysfs.hpp"

namespace hookline::bench {
namespace {

constexpr uint16_t kVendor = 0x8086, kVirtualFunction = 0x10ca;
constexpr uint32_t kPage = 4096;
constexpr uint32_t kBoth = HOOKLINE_WANT_READ | HOOKLINE_WANT_WRITE;
constexpr hookline_range kFirst[] = {{0, kBoth, 0, kPage}}, kFirstTwo[] = {{0, kBoth, 0, 2 * kPage}};

int access(void*, hookline_access* access) {
  if (access->op != HOOKLINE_OP_READ || access->offset != kAnsweredRegister) return HOOKLINE_PASS;
  access->value = kAnswer;
  return HOOKLINE_HANDLED;
}

// A stream of exactly `size` bytes, whatever stands in the window.
Result<ServeEnd> transport(Session& session, uint64_t size) {
  uint64_t moved = 0;
  for (int answered = VFIO_PCI_HOOKS_NO_SLOT;;) {
    const auto next = session.next(answered, -1);
    if (!next) {
      if (next.error().code == ESHUTDOWN) return ServeEnd::closed;
      return fail(next.error());
    }
    answered = next->what == VFIO_PCI_HOOKS_NEXT_REQUEST ? next->slot : VFIO_PCI_HOOKS_NO_SLOT;
    if (answered == VFIO_PCI_HOOKS_NO_SLOT) continue;
    vfio_pci_hooks_slot& slot = session.slot(static_cast<uint32_t>(answered));
    if (slot.flags & VFIO_PCI_HOOKS_REQ_BEGIN) moved = 0;
    const uint64_t room = slot.length ? slot.length : session.stream().size();
    slot.answer_length = static_cast<uint32_t>(std::min(room, size - moved));
    moved += slot.answer_length;
    slot.answer_flags = moved == size ? VFIO_PCI_HOOKS_ANSWER_END : 0;
    // To load: only the stream's last byte says anything.
    slot.dirty_bytes = slot.op == VFIO_PCI_HOOKS_REQ_LOAD && moved < size ? size - moved - 1 : 0;
    slot.answer = VFIO_PCI_HOOKS_HANDLED;
    slot.answer_seq = slot.seq;
  }
}

Result<ServeEnd> serve_as(Worker worker, Session& session, OpenDevice& device) {
  switch (worker) {
    case Worker::waits:
      break;
    case Worker::polls:
      return serve(session, device, {.busy_poll = std::chrono::microseconds(10000)});
    case Worker::transport:
      return transport(session, device.chain().links()[0].plugin.max_bulk);
  }
  return serve(session, device);
}

[[noreturn]] void work(const DefinedDevice& defined, Worker worker) {
  auto channel = defined.control().attach(parse_address(defined.address()));
  if (!channel) {
    fmt::print(stderr, "worker: {}\n", channel.error().text);
    ::_exit(1);
  }
  for (;;) {
    auto session = channel->wait_open(defined.chain());
    if (!session) ::_exit(session.error().code == ENODEV ? 0 : 1);
    auto device = OpenDevice::open(defined.chain(), **session, {.address = defined.address()});
    if (!device) ::_exit(1);
    if (auto end = serve_as(worker, **session, **device); !end) {
      fmt::print(stderr, "worker: {}\n", end.error().text);
      ::_exit(1);
    }
  }
}

}  // namespace

std::span<const hookline_range> ranges_of(TrappedPages pages) {
  switch (pages) {
    case TrappedPages::none:
      return {};
    case TrappedPages::first:
      return kFirst;
    case TrappedPages::first_two:
      return kFirstTwo;
  }
  return {};
}

Chain chain_for(TrappedPages pages) {
  std::vector<Link> links;
  links.push_back(must(make_link(small_plugin("bench", ranges_of(pages), access))));
  return must(build_chain(std::move(links)));
}

vfio_pci_hooks_address parse_address(const std::string& address) {
  unsigned domain = 0, bus = 0, slot = 0, function = 0;
  if (std::sscanf(address.c_str(), "%x:%x:%x.%u", &domain, &bus, &slot, &function) != 4)
    throw std::runtime_error("no PCI address: \"" + address + "\"");
  return {domain, static_cast<uint8_t>(bus), static_cast<uint8_t>(slot << 3 | function), 0};
}

DefinedDevice::DefinedDevice(const std::string& address, Chain chain, std::vector<std::string> handlers)
    : address_(address), control_(must(ControlDevice::open())), chain_(std::move(chain)) {
  must(sysfs::release(address));
  Definition definition;
  definition.address = parse_address(address);
  definition.vendor = kVendor;
  definition.device = kVirtualFunction;
  definition.handlers = std::move(handlers);
  // A worker that is late on a busy host would be revoked, and the figures with it.
  definition.access_limit_ms = 10000;
  definition.state_limit_ms = 600000;
  must(control_.define(definition, chain_));
  must(sysfs::bind(address, "vfio-pci-hooks"));
}

DefinedDevice::~DefinedDevice() {
  (void)sysfs::release(address_);
  (void)control_.undefine(parse_address(address_));
}

vfio_pci_hooks_status DefinedDevice::status() const {
  return must(control_.status(parse_address(address_)));
}

ServedDevice::ServedDevice(const std::string& address, Chain chain, Worker worker, std::vector<std::string> handlers)
    : defined_(address, std::move(chain), std::move(handlers)), pid_(::fork()) {
  if (pid_ < 0) throw std::runtime_error("the worker could not be forked");
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    work(defined_, worker);
  }
  if (!sysfs::wait_until([&] { return (defined_.status().flags & VFIO_PCI_HOOKS_STATUS_ATTACHED) != 0; },
                         std::chrono::seconds(20))) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    throw std::runtime_error("the worker did not attach to " + address);
  }
}

ServedDevice::~ServedDevice() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void ServedDevice::expect_accesses(uint64_t count) const {
  const auto status = defined_.status();
  if (status.accesses == count && status.missed == 0) return;
  throw std::runtime_error(fmt::format("{}: the worker answered {} of {} trapped accesses, {} went past it",
                                       defined_.address(), status.accesses, count, status.missed));
}

}  // namespace hookline::bench
