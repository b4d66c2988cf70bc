// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include <linux/vfio.h>

#include "channel_moves.hpp"

namespace hookline::fuzz {
namespace {

using kernel_test::Control;
using std::chrono::milliseconds;

constexpr size_t kSlotBytes = VFIO_PCI_HOOKS_SLOTS * sizeof(vfio_pci_hooks_slot);

/// Descriptors stay open for a while after they were replaced, so that calls on dead sessions are made, too.
struct Worker {
  explicit Worker(std::string where) : address(std::move(where)) {}
  std::string address;
  Control control;
  std::atomic<int> channel{-1}, session{-1};
  std::array<std::atomic<int>, 4> old{-1, -1, -1, -1};
  std::atomic<uint8_t*> slots{nullptr}, shadow{nullptr}, stream{nullptr};
  std::atomic<int> holders{0};         ///< threads that use these mappings, the one that serves aside
  std::atomic<uint64_t> scribbles{0};  ///< words of the slots that were about to be changed for no reason
  std::atomic<bool> stop{false};
  uint32_t shadow_bytes = 4096;
  std::atomic<uint64_t> slices{0};  ///< of the stream that follow the one that is asked for
};

/// As long as it lives, what is mapped of the session stays so.
class Hold {
 public:
  explicit Hold(Worker& w) : w_(w) { ++w_.holders; }
  ~Hold() { --w_.holders; }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  Worker& w_;
};

int any_session(Actor& a, Worker& w) {
  return a.random.one_in(8) ? w.old[a.random.below(4)].load() : w.session.load();
}

void keep(Worker& w, Actor& a, int fd) {
  const int former = w.old[a.random.below(4)].exchange(fd);
  if (former >= 0) ::close(former);
}

uint8_t* map(int fd, size_t bytes, uint64_t offset) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  return at == MAP_FAILED ? nullptr : static_cast<uint8_t*>(at);
}

// ---- serving

/// What a worker may leave in a slot instead of an answer.
void spoil(Actor& a, vfio_pci_hooks_slot& slot) {
  switch (a.random.below(9)) {
    case 0:
      slot.answer_seq = static_cast<uint32_t>(a.random.odd());
      break;
    case 1:
      slot.answer = static_cast<int32_t>(a.random.odd());
      break;
    case 2:
      slot.answer_length = static_cast<uint32_t>(a.random.odd());
      break;
    case 3:
      slot.answer_flags = static_cast<uint32_t>(a.random.odd());
      break;
    case 4:
      slot.initial_bytes = a.random.odd();
      break;
    case 5:
      slot.dirty_bytes = a.random.odd();
      break;
    case 6:
      slot.answer = VFIO_PCI_HOOKS_RUN_REST;
      break;
    case 7:
      slot.answer = -static_cast<int32_t>(1 + a.random.below(600));
      break;
    default:
      slot.length = slot.op = static_cast<uint32_t>(a.random.odd());
      break;
  }
}

/// What an answer about a slice says of the stream.
uint32_t end_of(Worker& w) {
  if (w.slices == 0) return VFIO_PCI_HOOKS_ANSWER_END;
  --w.slices;
  return 0;
}

void answer(Actor& a, Worker& w, vfio_pci_hooks_slot& slot) {
  slot.answer_seq = slot.seq;
  slot.answer = 0;
  slot.answer_flags = 0;
  slot.answer_length = std::min<uint32_t>(slot.length, sizeof slot.data);
  slot.initial_bytes = slot.dirty_bytes = 0;
  // Of what is loaded the VMM knows the end: mostly it comes later than that.
  if (slot.flags & VFIO_PCI_HOOKS_REQ_BEGIN)
    w.slices = a.random.one_in(4) ? a.random.below(2) : slot.op == VFIO_PCI_HOOKS_REQ_LOAD ? 16 : 1 + a.random.below(4);
  switch (slot.op) {
    case VFIO_PCI_HOOKS_REQ_READ:
    case VFIO_PCI_HOOKS_REQ_WRITE:
      if (uint8_t* shadow = w.shadow)
        shadow[a.random.below(w.shadow_bytes)] = static_cast<uint8_t>(a.random.next());
      slot.answer = a.random.one_in(3) ? VFIO_PCI_HOOKS_PASS : VFIO_PCI_HOOKS_HANDLED;
      break;
    case VFIO_PCI_HOOKS_REQ_IOCTL:
    case VFIO_PCI_HOOKS_REQ_FEATURE:
      slot.answer = static_cast<int32_t>(a.random.below(3));
      break;
    case VFIO_PCI_HOOKS_REQ_SAVE:
      slot.initial_bytes = a.random.below(100);
      if (slot.index == VFIO_PCI_HOOKS_PHASE_PRE_COPY) {
        slot.answer_length = static_cast<uint32_t>(1 + a.random.below(64));
        slot.answer_flags = VFIO_PCI_HOOKS_ANSWER_END;
        break;
      }
      slot.answer_length = a.random.one_in(4) ? static_cast<uint32_t>(1 + a.random.below(VFIO_PCI_HOOKS_STREAM_SLICE))
                                              : VFIO_PCI_HOOKS_STREAM_SLICE;
      slot.answer_flags = end_of(w);
      break;
    case VFIO_PCI_HOOKS_REQ_LOAD:
      slot.answer_flags = end_of(w);
      if (a.random.one_in(2)) slot.dirty_bytes = a.random.below(2 * VFIO_PCI_HOOKS_STREAM_SLICE);
      break;
    default:
      slot.answer = VFIO_PCI_HOOKS_PASS;
  }
}

/// Late, never, nonsense, or well mostly; whether there is something to hand over.
bool deal_with(Actor& a, Worker& w, vfio_pci_hooks_slot& slot) {
  if (a.random.one_in(200)) std::this_thread::sleep_for(milliseconds(a.random.below(400)));  // late
  if (a.random.one_in(100)) return false;                                                    // never
  if (a.random.one_in(2000)) raise(SIGKILL);
  answer(a, w, slot);
  if (a.random.one_in(12)) spoil(a, slot);
  return true;
}

/// Stays awake for a short time. What NEXT is to hand over: slot 0, or NO_SLOT.
int32_t watch(Actor& a, Worker& w, vfio_pci_hooks_slot& slot) {
  constexpr uint32_t kLooksPerTime = 64;  // what time it is may cost more than the kernel waits for an answer
  using Clock = std::chrono::steady_clock;
  const std::atomic_ref<uint32_t> word(slot.watch);
  const auto end = Clock::now() + std::chrono::microseconds(a.random.below(a.random.one_in(8) ? 20000 : 3000));
  bool answered = false;
  uint64_t scribbles = 0;
  for (uint32_t looks = 1; looks % kLooksPerTime != 0 || (!w.stop && Clock::now() < end); ++looks) {
    uint32_t seen = word.load(std::memory_order_acquire);
    if (seen == VFIO_PCI_HOOKS_WATCH_ANSWERED || seen == VFIO_PCI_HOOKS_WATCH_TAKEN) continue;
    // CALL says nothing about the answer, and what the scribbler wrote says nothing at all.
    const bool goes_on = seen == VFIO_PCI_HOOKS_WATCH_IDLE || seen == VFIO_PCI_HOOKS_WATCH_REQUEST;
    if (std::exchange(answered, false) && goes_on && scribbles == w.scribbles) ++a.board().word_answers;
    if (!goes_on) return VFIO_PCI_HOOKS_NO_SLOT;
    if (seen == VFIO_PCI_HOOKS_WATCH_IDLE) continue;
    if (a.random.one_in(16)) return VFIO_PCI_HOOKS_NO_SLOT;  // NEXT tells it
    uint32_t taken = VFIO_PCI_HOOKS_WATCH_TAKEN;
    if (a.random.one_in(24))
      taken = seen;  // forgotten
    else if (!word.compare_exchange_strong(seen, taken))
      continue;
    if (!deal_with(a, w, slot)) return VFIO_PCI_HOOKS_NO_SLOT;
    scribbles = w.scribbles;
    if (!word.compare_exchange_strong(taken, VFIO_PCI_HOOKS_WATCH_ANSWERED)) return 0;
    if (a.random.one_in(16)) return VFIO_PCI_HOOKS_NO_SLOT;  // NEXT at once
    if (a.random.one_in(24)) return 0;                       // and by NEXT once more
    answered = true;
  }
  return VFIO_PCI_HOOKS_NO_SLOT;
}

/// Until the session ends; false: nobody said so, its descriptor is another's or gone.
bool serve(Actor& a, Worker& w) {
  vfio_pci_hooks_next next{};
  bool watches = a.random.one_in(2);
  for (next.answered = VFIO_PCI_HOOKS_NO_SLOT; !w.stop;) {
    if (a.random.one_in(8)) watches = !watches;
    next.argsz = sizeof next;
    next.flags = watches ? VFIO_PCI_HOOKS_NEXT_WATCH : 0;
    next.timeout_ms = 100;
    a.thread().since_ms = now_ms();
    const bool answered = next.answered != VFIO_PCI_HOOKS_NO_SLOT;
    const int result = ioctl(w.session, VFIO_PCI_HOOKS_NEXT, &next) < 0 ? errno : 0;
    a.thread().since_ms = 0;
    if (answered && next.answered == VFIO_PCI_HOOKS_NO_SLOT) ++a.board().answers;
    if (result == ESHUTDOWN || result == ECANCELED) return true;
    if (result == EBADF) return false;
    if (result == EINVAL)
      next.answered = VFIO_PCI_HOOKS_NO_SLOT;  // it was spoiled, cancelled, or another thread had it
    if (watches && (result == ETIME || result == EINTR))
      violation(a.board(), "NEXT waits although its caller would stay awake");
    if (result != 0) continue;
    next.answered = VFIO_PCI_HOOKS_NO_SLOT;
    auto* slots = reinterpret_cast<vfio_pci_hooks_slot*>(w.slots.load());
    if (next.what == VFIO_PCI_HOOKS_NEXT_WATCHING) {
      if (!watches) violation(a.board(), "NEXT lets somebody watch who did not ask for it");
      if (slots == nullptr) return false;
      next.answered = watch(a, w, slots[0]);
      continue;
    }
    if (next.what != VFIO_PCI_HOOKS_NEXT_REQUEST) continue;
    if (slots == nullptr) return false;
    if (deal_with(a, w, slots[next.slot])) next.answered = next.slot;
  }
  return false;
}

/// RL3: a session that has ended reaches nothing any more, at the latest when whatever it was doing has
/// ended, too.
void expect_dead(Actor& a, int session) {
  uint32_t value = 0;
  vfio_pci_hooks_rw rw{};
  rw.argsz = sizeof rw;
  rw.offset = 8;
  rw.length = sizeof value;
  rw.data = reinterpret_cast<uintptr_t>(&value);
  const uint64_t limit = now_ms() + 10000;
  while (ioctl(session, VFIO_PCI_HOOKS_REGION_RW, &rw) == 0) {
    if (now_ms() > limit) return violation(a.board(), "a session that has ended still reads registers");
    std::this_thread::sleep_for(milliseconds(1));
  }
}

void serve_forever(Actor a, Worker& w) {
  a.thread().move = "serve";
  while (!w.stop) {
    if (w.channel < 0) {
      const int fd = w.control.attach(w.address);
      if (fd >= 0) w.channel = fd;
      std::this_thread::sleep_for(milliseconds(1 + a.random.below(20)));
      continue;
    }
    vfio_pci_hooks_wait_open open{};
    open.argsz = sizeof open;
    open.flags = a.random.one_in(2) ? VFIO_PCI_HOOKS_WAIT_NONBLOCK : 0;
    if (ioctl(w.channel, VFIO_PCI_HOOKS_WAIT_OPEN, &open) != 0) {
      if (errno != EINTR && errno != EAGAIN) keep(w, a, w.channel.exchange(-1));
      std::this_thread::sleep_for(milliseconds(1));
      continue;
    }
    ++a.board().sessions;
    w.slots = map(open.fd, kSlotBytes, VFIO_PCI_HOOKS_MMAP_SLOTS);
    w.stream = map(open.fd, VFIO_PCI_HOOKS_STREAM_SIZE, VFIO_PCI_HOOKS_MMAP_STREAM);
    w.shadow = map(open.fd, w.shadow_bytes, VFIO_PCI_HOOKS_MMAP_SHADOW);
    w.session = open.fd;
    if (serve(a, w)) expect_dead(a, w.session);
    keep(w, a, w.session.exchange(-1));
    // Mappings are left to the kernel now and then; a fixed number of them is enough.
    uint8_t* const slots = w.slots.exchange(nullptr);
    uint8_t* const stream = w.stream.exchange(nullptr);
    uint8_t* const shadow = w.shadow.exchange(nullptr);
    while (w.holders != 0) std::this_thread::sleep_for(milliseconds(1));
    if (slots) munmap(slots, kSlotBytes);
    if (stream) munmap(stream, VFIO_PCI_HOOKS_STREAM_SIZE);
    if (shadow) munmap(shadow, w.shadow_bytes);
  }
}

// ---- moves

/// Also with NEXT_WATCH, and then it watches.
int next(Actor& a, Worker& w) {
  vfio_pci_hooks_next arg{};
  arg.argsz = sizeof arg;
  arg.flags = a.random.one_in(2) ? VFIO_PCI_HOOKS_NEXT_WATCH : 0;
  arg.answered = static_cast<int32_t>(a.random.below(VFIO_PCI_HOOKS_SLOTS + 1)) - 1;
  arg.timeout_ms = static_cast<int32_t>(a.random.below(20));
  const int result = a.call(any_session(a, w), VFIO_PCI_HOOKS_NEXT, arg);
  if (result != 0 || arg.what != VFIO_PCI_HOOKS_NEXT_WATCHING) return result;
  // A second thread that watches; what it has to hand over goes with the next call, if at all.
  const Hold hold(w);
  if (auto* slots = reinterpret_cast<vfio_pci_hooks_slot*>(w.slots.load())) (void)watch(a, w, slots[0]);
  return 0;
}

int wait_open(Actor& a, Worker& w) {
  vfio_pci_hooks_wait_open arg{};
  arg.argsz = sizeof arg;
  arg.flags = VFIO_PCI_HOOKS_WAIT_NONBLOCK;
  const int result = a.call(w.channel, VFIO_PCI_HOOKS_WAIT_OPEN, arg);
  // A session of its own that nobody serves: its requests time out.
  if (result == 0 && arg.fd > 2) keep(w, a, arg.fd);
  return result;
}

int region_rw(Actor& a, Worker& w) {
  vfio_pci_hooks_rw arg{};
  arg.argsz = sizeof arg;
  arg.region = a.random.of({0u, 0u, 0u, 3u, 7u, 7u, 6u, 8u});
  arg.length = static_cast<uint32_t>(a.random.one_in(4) ? 1 + a.random.below(4096) : 4);
  arg.offset = a.random.one_in(4) ? a.random.below(16384) : 0x800 + a.random.below(60);
  arg.data = reinterpret_cast<uintptr_t>(a.buffer(arg.length));
  return a.call(any_session(a, w), VFIO_PCI_HOOKS_REGION_RW, arg);
}

int region_write(Actor& a, Worker& w) {
  vfio_pci_hooks_rw arg{};
  arg.argsz = sizeof arg;
  arg.flags = VFIO_PCI_HOOKS_RW_WRITE;
  const bool config = a.random.one_in(3);
  arg.region = config ? 7 : 0;
  arg.length = config ? 2 : static_cast<uint32_t>(1 + a.random.below(32));
  arg.offset = config ? 4 : 0x800 + a.random.below(32);
  void* place = a.buffer(arg.length);
  arg.data = reinterpret_cast<uintptr_t>(place);
  // Only what does no harm may be bent: where it goes stays.
  return ioctl(any_session(a, w), VFIO_PCI_HOOKS_REGION_RW, &arg) < 0 ? errno : 0;
}

int iova_rw(Actor& a, Worker& w) {
  vfio_pci_hooks_rw arg{};
  arg.argsz = sizeof arg;
  arg.flags = a.random.one_in(2) ? VFIO_PCI_HOOKS_RW_WRITE : 0;
  arg.length = static_cast<uint32_t>(1 + a.random.below(a.random.one_in(4) ? 65536 : 64));
  arg.offset = a.random.below(1 << 21);
  arg.data = reinterpret_cast<uintptr_t>(a.buffer(arg.length));
  return a.call(any_session(a, w), VFIO_PCI_HOOKS_IOVA_RW, arg);
}

int start_once(Actor& a, Worker& w) {
  const auto steps = harmless_steps(a.random, true);
  vfio_pci_hooks_start_once arg{};
  arg.argsz = sizeof arg;
  arg.program = {static_cast<uint32_t>(steps.size()), 0, reinterpret_cast<uintptr_t>(steps.data())};
  return a.call(any_session(a, w), VFIO_PCI_HOOKS_START_ONCE, arg);
}

int get_saved(Actor& a, Worker& w) {
  vfio_pci_hooks_saved arg{};
  arg.argsz = sizeof arg;
  return a.call(any_session(a, w), VFIO_PCI_HOOKS_GET_SAVED, arg);
}

int set_sizes(Actor& a, Worker& w) {
  vfio_pci_hooks_sizes arg{};
  arg.argsz = sizeof arg;
  arg.initial_bytes = a.random.below(4096);
  arg.stop_copy_bytes = a.random.below(1 << 22);
  return a.call(any_session(a, w), VFIO_PCI_HOOKS_SET_SIZES, arg);
}

int touched(Actor& a, Worker& w) {
  vfio_pci_hooks_touched arg{};
  arg.argsz = sizeof arg;
  arg.offset = a.random.below(4) * 4096;
  arg.pages = 1 + a.random.below(4);
  arg.bitmap = reinterpret_cast<uintptr_t>(a.buffer(sizeof(uint64_t)));
  return a.call(any_session(a, w), VFIO_PCI_HOOKS_TOUCHED, arg);
}

/// Answers what it was given, mostly; ids of others now and then.
int next_query(Actor& a, Worker& w) {
  static thread_local uint64_t given = 0;
  std::array<char, VFIO_PCI_HOOKS_VERSION_LEN> good;
  good.fill('x');
  void* text = a.random.one_in(4) ? a.buffer(good.size()) : good.data();
  vfio_pci_hooks_next_query arg{};
  arg.argsz = sizeof arg;
  arg.answered = a.random.one_in(8) ? a.random.below(1000) : given;
  arg.answer = a.random.one_in(4) ? -static_cast<int32_t>(a.random.below(600)) : 0;
  arg.timeout_ms = static_cast<int32_t>(a.random.below(20));
  arg.length = static_cast<uint32_t>(a.random.one_in(4) ? a.random.odd() : 1 + a.random.below(200));
  arg.text = reinterpret_cast<uintptr_t>(text);
  const int result = a.call(w.channel, VFIO_PCI_HOOKS_NEXT_QUERY, arg);
  if (result == 0) ++a.board().queries;
  given = result == 0 && !a.random.one_in(20) ? arg.id : 0;
  return result;
}

int get_parameters(Actor& a, Worker& w) {
  vfio_pci_hooks_parameters arg{};
  arg.argsz = sizeof arg;
  arg.nr = static_cast<uint32_t>(a.random.one_in(4) ? a.random.odd() : a.random.below(34));
  arg.values = reinterpret_cast<uintptr_t>(a.buffer(34 * VFIO_PCI_HOOKS_VALUE_LEN));
  return a.call(a.random.one_in(2) ? w.channel.load() : any_session(a, w), VFIO_PCI_HOOKS_GET_PARAMETERS, arg);
}

int set_parameters(Actor& a, Worker& w) {
  char values[VFIO_PCI_HOOKS_MAX_PARAMETERS][VFIO_PCI_HOOKS_VALUE_LEN] = {};
  for (auto& value : values) value[0] = static_cast<char>('0' + a.random.below(4));
  vfio_pci_hooks_parameters arg{};
  arg.argsz = sizeof arg;
  arg.nr = static_cast<uint32_t>(a.random.below(5));
  arg.values = a.random.one_in(4) ? reinterpret_cast<uintptr_t>(a.buffer(sizeof values)) : reinterpret_cast<uintptr_t>(values);
  return a.call(any_session(a, w), VFIO_PCI_HOOKS_SET_PARAMETERS, arg);
}

int map_something(Actor& a, Worker& w) {
  static constexpr uint64_t kWindows[] = {0,
                                          uint64_t{3} << 40,
                                          uint64_t{7} << 40,
                                          VFIO_PCI_HOOKS_MMAP_SLOTS,
                                          VFIO_PCI_HOOKS_MMAP_SHADOW,
                                          VFIO_PCI_HOOKS_MMAP_STREAM,
                                          uint64_t{67} << 40};
  const size_t bytes = 4096 * (1 + a.random.below(a.random.one_in(4) ? 300 : 4));
  const uint64_t offset = a.random.of(kWindows) + 4096 * a.random.below(a.random.one_in(4) ? 300 : 4);
  const int sharing = a.random.one_in(12) ? MAP_PRIVATE : MAP_SHARED;
  void* at = mmap(nullptr, bytes, a.random.one_in(4) ? PROT_READ : PROT_READ | PROT_WRITE, sharing,
                  any_session(a, w), static_cast<off_t>(offset));
  if (at == MAP_FAILED) return errno;
  // Reads only: a BAR may lie there.
  volatile uint8_t* bytes_at = static_cast<uint8_t*>(at);
  for (int i = 0; i < 4; ++i) (void)bytes_at[a.random.below(bytes) & ~size_t{3}];
  switch (a.random.below(6)) {
    case 0:
      madvise(at, bytes, MADV_DONTNEED);
      break;
    case 1:
      mprotect(at, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
      break;
    case 2: {
      void* moved = mremap(at, bytes, bytes + 4096, MREMAP_MAYMOVE);
      if (moved != MAP_FAILED) munmap(moved, bytes + 4096);
      break;
    }
    case 3:
      munmap(at, 4096);
      break;
    case 4:
      madvise(at, bytes, MADV_DOFORK);
      break;
    default:
      break;
  }
  // As a buffer of later calls, good as long as its session is.
  if (bytes == 4096 && a.random.one_in(2)) std::swap(a.other, at);
  if (at) munmap(at, bytes);
  return 0;
}

int close_session(Actor& a, Worker& w) {
  const int fd = w.old[a.random.below(4)].exchange(-1);
  if (fd < 0) return EBADF;
  return ::close(fd) < 0 ? errno : 0;
}

int drop_channel(Actor& a, Worker& w) {
  if (!a.random.one_in(8)) return EAGAIN;
  const int fd = w.channel.exchange(-1);
  if (fd < 0) return EBADF;
  if (a.random.one_in(2)) {
    keep(w, a, fd);
    return 0;
  }
  return ::close(fd) < 0 ? errno : 0;
}

int poll_all(Actor& a, Worker& w) {
  pollfd fds[] = {
      {w.channel, POLLIN, 0}, {any_session(a, w), POLLIN | POLLOUT, 0}, {w.control.fd(), POLLIN, 0}};
  return poll(fds, std::size(fds), static_cast<int>(a.random.below(5))) < 0 ? errno : 0;
}

int wrong_call(Actor& a, Worker& w) {
  std::array<uint32_t, 64> argument{};
  argument[0] = static_cast<uint32_t>(a.random.odd());
  const int fds[] = {w.channel, any_session(a, w), w.control.fd()};
  const unsigned long request =
      _IOC(a.random.below(4), a.random.one_in(3) ? VFIO_TYPE : VFIO_PCI_HOOKS_IOC_TYPE,
           a.random.one_in(3) ? 100 + a.random.below(24) : a.random.below(40), a.random.below(300));
  // DEFINE and UNDEFINE are for the control process.
  if (_IOC_TYPE(request) == VFIO_PCI_HOOKS_IOC_TYPE && _IOC_NR(request) < 16) return EINVAL;
  return a.call(a.random.of(fds), request, argument);
}

int plain_file(Actor& a, Worker& w) {
  const int fds[] = {w.channel, any_session(a, w)};
  const int fd = a.random.of(fds);
  switch (a.random.below(6)) {
    case 0:
      return read(fd, a.buffer(16), 16) < 0 ? errno : 0;
    case 1:
      return write(fd, a.buffer(16), 16) < 0 ? errno : 0;
    case 2:
      return lseek(fd, static_cast<off_t>(a.random.odd()), SEEK_SET) < 0 ? errno : 0;
    case 3:
      return fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC) < 0 ? errno : 0;
    case 4:
      return posix_fadvise(fd, 0, static_cast<off_t>(a.random.odd()), POSIX_FADV_WILLNEED);
    default: {
      const int copy = dup(fd);
      return copy < 0 ? errno : ::close(copy) < 0 ? errno : 0;
    }
  }
}

/// Not always, or no request would ever be answered well.
void scribble_shared(Actor& a, Worker& w) {
  const Hold hold(w);
  uint8_t* const shared[] = {w.slots, w.shadow, w.stream};
  const size_t bytes[] = {kSlotBytes, w.shadow_bytes, VFIO_PCI_HOOKS_STREAM_SIZE};
  const size_t which = a.random.below(3);
  if (shared[which] && a.random.one_in(4)) {
    w.scribbles += which == 0;
    reinterpret_cast<volatile uint32_t*>(shared[which])[a.random.below(bytes[which] / 4)] =
        static_cast<uint32_t>(a.random.odd());
  }
  if (shared[0] && a.random.one_in(16)) {
    ++w.scribbles;
    const uint64_t value = a.random.one_in(4) ? a.random.odd() : a.random.below(VFIO_PCI_HOOKS_WATCH_ANSWERED + 1);
    std::atomic_ref<uint32_t>(reinterpret_cast<vfio_pci_hooks_slot*>(shared[0])->watch) = static_cast<uint32_t>(value);
  }
}

constexpr Move<Worker> kMoves[] = {
    {12, "worker: NEXT", next},
    {1, "worker: WAIT_OPEN", wait_open},
    {20, "worker: REGION_RW read", region_rw},
    {12, "worker: REGION_RW write", region_write},
    {12, "worker: IOVA_RW", iova_rw},
    {12, "worker: START_ONCE", start_once},
    {6, "worker: GET_SAVED", get_saved},
    {6, "worker: SET_SIZES", set_sizes},
    {12, "worker: TOUCHED", touched},
    {12, "worker: NEXT_QUERY", next_query},
    {6, "worker: GET_PARAMETERS", get_parameters},
    {6, "worker: SET_PARAMETERS", set_parameters},
    {12, "worker: mmap", map_something},
    {3, "worker: close a session", close_session},
    {1, "worker: close the channel", drop_channel},
    {6, "worker: poll", poll_all},
    {8, "worker: unknown ioctl", wrong_call},
    {4, "worker: as a plain file", plain_file},
};
constexpr size_t kTable = 1;

}  // namespace

void run_worker(const std::string& address, uint64_t seed, Board& board, size_t first_thread) {
  survive_lost_pages(board);
  interruptible();
  Arena arena;
  Worker w(address);
  std::vector<std::thread> threads;
  const auto actor = [&](size_t i) {
    Board::Thread& me = board.threads[first_thread + i];
    me.pid = getpid(), me.tid = gettid(), me.since_ms = 0;
    return Actor(seed * 31 + i, arena, board, me);
  };
  threads.emplace_back([&] { serve_forever(actor(0), w); });
  for (size_t i = 1; i < 3; ++i)
    threads.emplace_back([&, i] {
      Actor a = actor(i);
      play(a, w, kMoves, kTable, w.stop, std::chrono::microseconds(300));
    });
  Actor scribbler = actor(3);
  for (;;) {
    arena.scribble(scribbler.random);
    scribble_shared(scribbler, w);
    pthread_kill(threads[scribbler.random.below(threads.size())].native_handle(), kInterrupt);
    std::this_thread::sleep_for(std::chrono::microseconds(200 + scribbler.random.below(5000)));
  }
}

}  // namespace hookline::fuzz
