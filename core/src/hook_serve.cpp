// SPDX-License-Identifier: Apache-2.0
#include <hookline/hook_serve.hpp>

#include <atomic>
#include <cerrno>
#include <utility>

#include <fmt/format.h>
#include <linux/vfio.h>

namespace hookline {

namespace {

// Event numbers and answers are the same on both sides, so they are handed through.
static_assert(HOOKLINE_EVENT_RESET == VFIO_PCI_HOOKS_EVENT_RESET &&
              HOOKLINE_EVENT_STATE == VFIO_PCI_HOOKS_EVENT_STATE);
static_assert(HOOKLINE_HANDLED == VFIO_PCI_HOOKS_HANDLED && HOOKLINE_PASS == VFIO_PCI_HOOKS_PASS &&
              HOOKLINE_RUN_REST == VFIO_PCI_HOOKS_RUN_REST);

tl::unexpected<Error> broken(std::string_view why) {
  return fail(EPROTO, fmt::format("the kernel's request makes no sense: {}", why));
}

/// Tells the processor that this is a loop that waits: power, and the other thread of its core.
void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

RequestServer::RequestServer(OpenDevice& device, std::span<std::byte> stream, PluginLog log,
                             ParameterStore* store)
    : device_(device), stream_(stream), log_(std::move(log)), store_(store) {}

Result<void> RequestServer::refresh_parameters() {
  if (!store_ || device_.chain().parameters().empty()) return {};
  Result<std::vector<std::string>> values = store_->parameters();
  if (!values) return fail(values.error());
  return device_.set_parameters(std::move(*values));
}

void RequestServer::answer(vfio_pci_hooks_slot& slot) noexcept {
  slot.answer_seq = slot.seq;
  slot.answer_length = 0;
  slot.answer_flags = 0;
  slot.initial_bytes = 0;
  slot.dirty_bytes = 0;
  try {
    const Result<Reply> reply = dispatch(slot);
    if (reply) {
      slot.answer = reply->answer;
      slot.answer_length = static_cast<uint32_t>(reply->length);
      slot.answer_flags = reply->end ? VFIO_PCI_HOOKS_ANSWER_END : 0;
      slot.initial_bytes = reply->sizes.initial;
      slot.dirty_bytes = reply->sizes.dirty;
      return;
    }
    slot.answer = -reply.error().code;
    if (log_) log_(HOOKLINE_LOG_ERROR, "", reply.error().text);
  } catch (...) {
    slot.answer = -ENOMEM;
  }
}

Result<RequestServer::Reply> RequestServer::dispatch(vfio_pci_hooks_slot& slot) {
  switch (slot.op) {
    case VFIO_PCI_HOOKS_REQ_READ:
      return access(slot, HOOKLINE_OP_READ);
    case VFIO_PCI_HOOKS_REQ_WRITE:
      return access(slot, HOOKLINE_OP_WRITE);
    case VFIO_PCI_HOOKS_REQ_IOCTL:
      return ioctl(slot, HOOKLINE_OP_IOCTL);
    case VFIO_PCI_HOOKS_REQ_FEATURE:
      return ioctl(slot, HOOKLINE_OP_FEATURE);
    case VFIO_PCI_HOOKS_REQ_SAVE:
      return save(slot);
    case VFIO_PCI_HOOKS_REQ_LOAD:
      return load(slot);
  }
  return fail(EOPNOTSUPP,
              fmt::format("the kernel asks for operation {}, which this hookline does not know: it is older "
                          "than the loaded module",
                          slot.op));
}

Result<RequestServer::Reply> RequestServer::access(vfio_pci_hooks_slot& slot, uint32_t op) {
  hookline_access a{};
  a.op = op;
  a.region = slot.index;
  a.offset = slot.offset;
  a.length = slot.length;
  if (a.length > 8) return broken("an access of more than 8 bytes");
  if (op == HOOKLINE_OP_WRITE) {
    for (uint32_t i = 0; i < a.length; ++i) a.value |= uint64_t{slot.data[i]} << (8 * i);
  }
  const Outcome outcome = device_.access(a);
  if (outcome.answer < 0) return fail(-outcome.answer, outcome.text);
  if (op == HOOKLINE_OP_READ && outcome.answer == HOOKLINE_HANDLED) {
    for (uint32_t i = 0; i < a.length; ++i) slot.data[i] = static_cast<uint8_t>(a.value >> (8 * i));
    return Reply{.length = a.length};
  }
  return Reply{.answer = outcome.answer};
}

Result<RequestServer::Reply> RequestServer::ioctl(vfio_pci_hooks_slot& slot, uint32_t op) {
  hookline_ioctl request{};
  request.op = op;
  request.number = slot.index;
  request.data = slot.data;
  request.length = slot.length;
  if (request.length > sizeof(slot.data)) return broken("an argument longer than its slot");
  const bool after = slot.flags & VFIO_PCI_HOOKS_REQ_AFTER;
  if (after) {
    request.flags = HOOKLINE_IOCTL_AFTER;
    request.result = slot.answer;
  }
  const Outcome outcome = device_.ioctl(request);
  if (outcome.answer < 0) return fail(-outcome.answer, outcome.text);
  if (outcome.answer != HOOKLINE_HANDLED) return Reply{.answer = outcome.answer};
  if (after && request.result < 0) return Reply{.answer = request.result};
  return Reply{.length = request.length};
}

Result<std::span<std::byte>> RequestServer::slice(uint64_t offset, uint64_t length) const {
  if (offset > stream_.size() || length > stream_.size() - offset)
    return broken("a slice that the stream buffer does not have");
  return stream_.subspan(offset, length);
}

Result<RequestServer::Reply> RequestServer::save(const vfio_pci_hooks_slot& slot) {
  if (slot.flags & VFIO_PCI_HOOKS_REQ_BEGIN) {
    saver_.reset();
    if (const Result<void> ok = refresh_parameters(); !ok) return fail(ok.error());
    Result<DeviceStateSaver> saver = DeviceStateSaver::begin(device_);
    if (!saver) return fail(saver.error());
    saver_ = std::move(*saver);
  }
  if (!saver_) return fail(EIO, "the worker that began this stream is gone: begin the migration again");
  const SavePhase phase =
      slot.index == VFIO_PCI_HOOKS_PHASE_PRE_COPY ? SavePhase::pre_copy : SavePhase::stop_copy;
  // Without a length from a module that has one slice.
  const Result<std::span<std::byte>> slice =
      this->slice(slot.offset, slot.length ? slot.length : stream_.size());
  if (!slice) return fail(slice.error());
  const Result<size_t> filled = saver_->fill(*slice, phase);
  if (!filled) return fail(filled.error());
  return Reply{.length = *filled, .end = saver_->finished(phase), .sizes = saver_->sizes()};
}

Result<RequestServer::Reply> RequestServer::load(const vfio_pci_hooks_slot& slot) {
  if (slot.flags & VFIO_PCI_HOOKS_REQ_BEGIN) loader_ = std::make_unique<DeviceStateLoader>(device_);
  if (!loader_) return fail(EIO, "the worker that began this stream is gone: begin the migration again");
  const Result<std::span<std::byte>> slice = this->slice(slot.offset, slot.length);
  if (!slice) return fail(slice.error());
  if (const Result<void> ok = loader_->write(*slice); !ok) return fail(ok.error());
  if (loader_->complete() && store_ && !device_.chain().parameters().empty()) {
    if (const Result<void> ok = store_->set_parameters(device_.parameters()); !ok) return fail(ok.error());
  }
  return Reply{.end = loader_->complete(), .sizes = {.dirty = loader_->ahead()}};
}

void RequestServer::event(const vfio_pci_hooks_next& next) noexcept {
  const auto say = [this](uint32_t level, const auto& text) noexcept {
    try {
      if (log_) log_(level, "", text());
    } catch (...) {
      // A line is lost for want of memory.
    }
  };
  if (next.event == VFIO_PCI_HOOKS_EVENT_RESET) {
    saver_.reset();
    loader_.reset();
  }
  if (next.event == VFIO_PCI_HOOKS_EVENT_PARAMETERS || next.lost) {
    try {
      if (const Result<void> ok = refresh_parameters(); !ok)
        say(HOOKLINE_LOG_WARNING, [&] { return ok.error().text; });
    } catch (...) {
      // No memory: with the next stream they are asked for again.
    }
  }
  if (next.lost)
    say(HOOKLINE_LOG_WARNING, [&] { return fmt::format("{} events came too fast and are lost", next.lost); });
  if (next.event == VFIO_PCI_HOOKS_EVENT_STATE && next.from == VFIO_DEVICE_STATE_PRE_COPY &&
      next.to == VFIO_DEVICE_STATE_RUNNING)
    say(HOOKLINE_LOG_INFO, [] {
      return std::string(
          "the migration ended before the guest stopped, which goes on here: it was cancelled, or the "
          "destination refused it, whose logs say why (Hookline's, or the VMM's if the device has no chain)");
    });
  if (next.event == VFIO_PCI_HOOKS_EVENT_PARAMETERS) return;
  device_.event({next.event, next.from, next.to, 0});
}

RequestServer::Watched RequestServer::watch(vfio_pci_hooks_slot& slot,
                                            std::chrono::microseconds awake) noexcept {
  using Clock = std::chrono::steady_clock;
  constexpr uint32_t kLooksPerTime = 256;  // the time of day costs more than a look
  const std::atomic_ref<uint32_t> word(slot.watch);
  std::optional<Clock::time_point> since;
  for (uint32_t looks = 1;; ++looks) {
    uint32_t seen = word.load(std::memory_order_acquire);
    if (seen == VFIO_PCI_HOOKS_WATCH_REQUEST && word.compare_exchange_strong(seen, VFIO_PCI_HOOKS_WATCH_TAKEN)) {
      answer(slot);
      uint32_t taken = VFIO_PCI_HOOKS_WATCH_TAKEN;
      return word.compare_exchange_strong(taken, VFIO_PCI_HOOKS_WATCH_ANSWERED) ? Watched::answered
                                                                                : Watched::hand_over;
    }
    if (seen != VFIO_PCI_HOOKS_WATCH_IDLE && seen != VFIO_PCI_HOOKS_WATCH_ANSWERED) return Watched::call;
    relax();
    if (looks % kLooksPerTime != 0) continue;
    const Clock::time_point now = Clock::now();
    if (!since) since = now;
    if (now - *since >= awake) return Watched::idle;
  }
}

Result<ServeEnd> serve(Session& session, OpenDevice& device, const ServeOptions& options) {
  RequestServer server(device, session.stream(), options.log, &session);
  int answered = VFIO_PCI_HOOKS_NO_SLOT;

  const auto end_of = [](const Error& error) -> std::optional<ServeEnd> {
    switch (error.code) {
      case ESHUTDOWN:
        return ServeEnd::closed;
      case ECANCELED:
        return ServeEnd::revoked;
      case ENODEV:
        return ServeEnd::gone;
    }
    return std::nullopt;
  };

  if (const Result<void> ok = server.refresh_parameters(); !ok) {
    if (const auto end = end_of(ok.error())) return *end;
    return fail(ok.error());
  }
  if (const Result<DeviceStateSaver> probe = DeviceStateSaver::begin(device); probe) {
    const Result<void> told = device.behind().set_sizes(
        probe->sizes().initial, device.chain().max_save() + device.chain().max_bulk_pass());
    if (!told) {
      if (const auto end = end_of(told.error())) return *end;
      return fail(told.error());
    }
  }

  bool watch = options.busy_poll.count() > 0, known = false, awake = watch;
  const auto should_stop = [&] { return options.should_stop && options.should_stop(); };
  for (;;) {
    const bool stop = should_stop(), watching = awake && !stop;
    const Result<vfio_pci_hooks_next> next = session.next(answered, stop ? 0 : options.idle_ms, watching);
    const bool had_answer = std::exchange(answered, VFIO_PCI_HOOKS_NO_SLOT) != VFIO_PCI_HOOKS_NO_SLOT;
    if (!next) {
      if (const auto end = end_of(next.error())) return *end;
      if (stop) return ServeEnd::stopped;
      const int code = next.error().code;
      if (code == ETIME || code == EINTR) continue;
      // Nobody waits for this answer any more: a reset or the end of its thread came first.
      if (code == EINVAL && (had_answer || known)) continue;
      if (code == EINVAL && watching) {
        watch = awake = false;
        if (options.log)
          options.log(HOOKLINE_LOG_WARNING, "",
                      "the loaded vfio-pci-hooks is older than busy_poll: the worker sleeps between accesses");
        continue;
      }
      return fail(next.error());
    }
    known = known || watching;
    awake = watch;
    if (next->what == VFIO_PCI_HOOKS_NEXT_WATCHING) {
      using Watched = RequestServer::Watched;
      Watched saw = Watched::answered;
      while (saw == Watched::answered && !should_stop())
        saw = server.watch(session.slot(0), options.busy_poll);
      if (saw == Watched::hand_over) answered = 0;
      awake = saw != Watched::idle;
    } else if (next->what == VFIO_PCI_HOOKS_NEXT_EVENT) {
      server.event(*next);
    } else if (stop) {
      // Not begun: it waits for the next worker.
      return ServeEnd::stopped;
    } else {
      server.answer(session.slot(static_cast<uint32_t>(next->slot)));
      answered = next->slot;
    }
  }
}

}  // namespace hookline
