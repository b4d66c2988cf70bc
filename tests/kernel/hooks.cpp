// SPDX-License-Identifier: Apache-2.0
#include "tests/kernel/hooks.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "tests/support/sysfs.hpp"

namespace hookline::kernel_test {
namespace {

constexpr const char* kControl = "/dev/vfio-pci-hooks";

[[noreturn]] void raise(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

vfio_pci_hooks_program program(const std::vector<vfio_pci_hooks_step>& steps) {
  return {static_cast<uint32_t>(steps.size()), 0, reinterpret_cast<uintptr_t>(steps.data())};
}

// ---- in the worker process

struct Session {
  int fd = -1;
  vfio_pci_hooks_slot* slots = nullptr;
  uint8_t* shadow = nullptr;
  uint8_t* stream = nullptr;
};

bool all_zero(const uint8_t* bytes, size_t size) {
  return std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; });
}

int region_rw(int session, uint32_t region, uint64_t offset, void* data, uint32_t length) {
  vfio_pci_hooks_rw rw{};
  rw.argsz = sizeof rw;
  rw.region = region;
  rw.offset = offset;
  rw.data = reinterpret_cast<uintptr_t>(data);
  rw.length = length;
  return ::ioctl(session, VFIO_PCI_HOOKS_REGION_RW, &rw) == 0 ? 0 : errno;
}

int iova_rw(int session, uint64_t iova, void* data, uint32_t length, bool write) {
  vfio_pci_hooks_rw rw{};
  rw.argsz = sizeof rw;
  rw.flags = write ? VFIO_PCI_HOOKS_RW_WRITE : 0;
  rw.offset = iova;
  rw.data = reinterpret_cast<uintptr_t>(data);
  rw.length = length;
  return ::ioctl(session, VFIO_PCI_HOOKS_IOVA_RW, &rw) == 0 ? 0 : errno;
}

class Server {
 public:
  Server(int channel, Board& board) : channel_(channel), board_(board) {}

  [[noreturn]] void run() {
    for (;;) {
      vfio_pci_hooks_wait_open open{};
      open.argsz = sizeof open;
      if (::ioctl(channel_, VFIO_PCI_HOOKS_WAIT_OPEN, &open) != 0) ::_exit(errno == ENODEV ? 0 : 1);
      begin(open);
      serve();
      old_ = session_.fd;
    }
  }

 private:
  static constexpr size_t kSlots = VFIO_PCI_HOOKS_SLOTS * sizeof(vfio_pci_hooks_slot), kShadow = 4096;

  // In the place of the mappings of the session before, which they would keep.
  void begin(const vfio_pci_hooks_wait_open& open) {
    session_.fd = open.fd;
    const auto map = [&](void* before, size_t size, uint64_t offset) {
      void* at = ::mmap(before, size, PROT_READ | PROT_WRITE, MAP_SHARED | (before ? MAP_FIXED : 0), open.fd,
                        static_cast<off_t>(offset));
      if (at == MAP_FAILED) ::_exit(2);
      return static_cast<uint8_t*>(at);
    };
    auto* raw = map(session_.slots, kSlots, VFIO_PCI_HOOKS_MMAP_SLOTS);
    session_.slots = reinterpret_cast<vfio_pci_hooks_slot*>(raw);
    session_.shadow = map(session_.shadow, kShadow, VFIO_PCI_HOOKS_MMAP_SHADOW);
    session_.stream = map(session_.stream, VFIO_PCI_HOOKS_STREAM_SIZE, VFIO_PCI_HOOKS_MMAP_STREAM);
    board_.pages_were_zero = all_zero(raw, kSlots) && all_zero(session_.shadow, kShadow) &&
                             all_zero(session_.stream, VFIO_PCI_HOOKS_STREAM_SIZE);
    std::memcpy(&word_, session_.shadow, sizeof word_);
    board_.shadow_word = word_;
    board_.session_was_again = (open.flags & VFIO_PCI_HOOKS_SESSION_AGAIN) != 0;
    if (old_ >= 0) {
      uint32_t value = 0;
      board_.old_session_rw = region_rw(old_, 0, 8, &value, 4);
      ::close(old_);
    }
    vfio_pci_hooks_sizes sizes{};
    sizes.argsz = sizeof sizes;
    sizes.initial_bytes = board_.pre_copy_bytes;
    sizes.stop_copy_bytes = board_.state_bytes;
    ::ioctl(session_.fd, VFIO_PCI_HOOKS_SET_SIZES, &sizes);
    ++board_.sessions;
  }

  void serve() {
    vfio_pci_hooks_next next = asking(VFIO_PCI_HOOKS_NO_SLOT, -1);
    for (;;) {
      if (early_) {
        next = *std::exchange(early_, std::nullopt);
      } else if (::ioctl(session_.fd, VFIO_PCI_HOOKS_NEXT, &next) != 0) {
        const bool late = errno == EINVAL && next.answered != VFIO_PCI_HOOKS_NO_SLOT;
        if (late) ++board_.late_answers;
        if (!late && errno != EINTR) return;
        next = asking(VFIO_PCI_HOOKS_NO_SLOT, -1);
        continue;
      }
      int32_t answered = VFIO_PCI_HOOKS_NO_SLOT;
      if (next.what == VFIO_PCI_HOOKS_NEXT_EVENT) {
        event(next);
      } else {
        if (board_.hang_at == session_.slots[next.slot].op) hang(next.slot);
        answer(session_.slots[next.slot]);
        answered = hand_over(next.slot);
      }
      next = asking(answered, -1);
    }
  }

  static vfio_pci_hooks_next asking(int32_t answered, int32_t timeout_ms) {
    vfio_pci_hooks_next next{};
    next.argsz = sizeof next;
    next.answered = answered;
    next.timeout_ms = timeout_ms;
    return next;
  }

  // The slot that NEXT is to answer, or none where the worker lies.
  int32_t hand_over(int32_t slot) {
    vfio_pci_hooks_slot& mailbox = session_.slots[slot];
    switch (board_.lie) {
      case Lie::none: return slot;
      case Lie::slot: {
        const int32_t other = (slot + 1) % VFIO_PCI_HOOKS_SLOTS;
        session_.slots[other] = mailbox;
        expect_refused(other);
        break;
      }
      case Lie::length:
        mailbox.answer_length = mailbox.length + 1;
        if (mailbox.op == VFIO_PCI_HOOKS_REQ_LOAD) mailbox.answer_flags = ~0u;
        expect_refused(slot);
        break;
      case Lie::twice: {
        vfio_pci_hooks_next next = asking(slot, 0);
        if (::ioctl(session_.fd, VFIO_PCI_HOOKS_NEXT, &next) == 0) early_ = next;
        expect_refused(slot);
        break;
      }
    }
    return VFIO_PCI_HOOKS_NO_SLOT;
  }

  void expect_refused(int32_t slot) {
    vfio_pci_hooks_next next = asking(slot, 0);
    if (::ioctl(session_.fd, VFIO_PCI_HOOKS_NEXT, &next) != 0 && errno == EINVAL) ++board_.refused_answers;
  }

  // Who wakes it up wants to know what it can still do. Its pages are gone with its session, so that going on is fatal.
  void hang(int32_t slot) {
    ::raise(SIGSTOP);
    uint32_t value = 0;
    board_.late_rw = region_rw(session_.fd, 0, 8, &value, 4);
    vfio_pci_hooks_next next{};
    next.argsz = sizeof next;
    next.answered = slot;
    board_.late_next = ::ioctl(session_.fd, VFIO_PCI_HOOKS_NEXT, &next) == 0 ? 0 : errno;
  }

  void event(const vfio_pci_hooks_next& next) {
    if (next.event == VFIO_PCI_HOOKS_EVENT_RESET) ++board_.resets;
    if (next.event != VFIO_PCI_HOOKS_EVENT_STATE) return;
    const uint32_t at = board_.nr_states;
    if (at < board_.states.size()) board_.states[at] = next.to;
    board_.nr_states = at + 1;
  }

  void answer(vfio_pci_hooks_slot& slot) {
    if (board_.die_at == slot.op) ::raise(SIGKILL);
    slot.answer_seq = slot.seq;
    slot.answer = 0;
    slot.answer_length = 0;
    slot.answer_flags = 0;
    if (slot.dirty_bytes != 0) board_.dirty_bytes_stood = true;
    slot.initial_bytes = slot.dirty_bytes = 0;
    switch (slot.op) {
      case VFIO_PCI_HOOKS_REQ_READ: return read(slot);
      case VFIO_PCI_HOOKS_REQ_WRITE: return write(slot);
      case VFIO_PCI_HOOKS_REQ_SAVE: return save(slot);
      case VFIO_PCI_HOOKS_REQ_LOAD: return load(slot);
      default: slot.answer = VFIO_PCI_HOOKS_PASS;
    }
  }

  void read(vfio_pci_hooks_slot& slot) {
    ++board_.reads;
    board_.last_offset = slot.offset;
    board_.last_length = slot.length;
    if (const uint64_t iova = board_.probe_iova) {
      uint64_t value = 0;
      board_.iova_read = iova_rw(session_.fd, iova, &value, sizeof value, false);
      board_.iova_value = value;
      ++value;
      board_.iova_write = iova_rw(session_.fd, iova, &value, sizeof value, true);
    }
    slot.answer = board_.read_answer;
    slot.answer_length = slot.length;
    const uint64_t value = board_.read_value;
    std::memcpy(slot.data, &value, slot.length);
  }

  void write(vfio_pci_hooks_slot& slot) {
    ++board_.writes;
    board_.last_offset = slot.offset;
    board_.last_length = slot.length;
    uint64_t value = 0;
    std::memcpy(&value, slot.data, slot.length);
    board_.last_value = value;
    word_ = static_cast<uint32_t>(value);
    std::memcpy(session_.shadow, &word_, sizeof word_);
    slot.answer = board_.write_answer;
  }

  // Counted when it comes, answered when it may be.
  static void count(std::atomic<uint64_t>& counted, const std::atomic<uint64_t>& allowed) {
    ++counted;
    while (counted > allowed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  void save(vfio_pci_hooks_slot& slot) {
    if (board_.saves < board_.save_phases.size()) board_.save_phases[board_.saves] = slot.index;
    count(board_.saves, board_.saves_allowed);
    if (slot.flags & VFIO_PCI_HOOKS_REQ_BEGIN) saved_ = 0;
    const uint64_t fails_at = board_.save_error == 0 ? ~uint64_t{0} : board_.save_fails_at == ~uint64_t{0} ? 0 : board_.save_fails_at.load();
    if (saved_ >= fails_at) {
      slot.answer = board_.save_error;
      return;
    }
    const bool pre_copy = slot.index == VFIO_PCI_HOOKS_PHASE_PRE_COPY;
    const uint64_t end = pre_copy ? board_.pre_copy_bytes : board_.state_bytes;
    const uint64_t length = std::min<uint64_t>({std::min(end, fails_at) - std::min(end, saved_), slot.length, board_.save_at_once});
    uint8_t* const slice = session_.stream + slot.offset;
    for (uint64_t i = 0; i < length; ++i) slice[i] = pattern(saved_ + i);
    saved_ += length;
    slot.initial_bytes = board_.initial_bytes;
    slot.answer_length = static_cast<uint32_t>(length);
    if (saved_ >= end && !(pre_copy && board_.pre_copy_goes_on)) slot.answer_flags = VFIO_PCI_HOOKS_ANSWER_END;
  }

  void load(vfio_pci_hooks_slot& slot) {
    count(board_.loads, board_.loads_allowed);
    if (slot.flags & VFIO_PCI_HOOKS_REQ_BEGIN) {
      loaded_ = 0;
      board_.load_matches = true;
    }
    const uint8_t* const slice = session_.stream + slot.offset;
    for (uint32_t i = 0; i < slot.length; ++i)
      if (slice[i] != pattern(loaded_ + i)) board_.load_matches = false;
    loaded_ += slot.length;
    board_.loaded_bytes = loaded_;
    if (const uint64_t record = board_.record) slot.dirty_bytes = record - 1 - loaded_ % record;
    if (board_.endless) slot.dirty_bytes = ~uint64_t{0};
    slot.answer = board_.load_error;
    if (slot.answer == 0 && loaded_ >= board_.state_bytes) slot.answer_flags = VFIO_PCI_HOOKS_ANSWER_END;
  }

  int channel_;
  Board& board_;
  Session session_;
  int old_ = -1;
  std::optional<vfio_pci_hooks_next> early_;  // fetched by a call that was to answer only
  uint32_t word_ = 0;
  uint64_t saved_ = 0, loaded_ = 0;
};

// Until the function leaves the driver; the process goes on.
void serve_queries(int channel, Board& board) {
  Query query;
  int ret = next_query(channel, query, -1);
  while (ret != ENODEV) {
    if (ret != 0) {
      ret = next_query(channel, query, -1);
      continue;
    }
    ++board.queries;
    query.text.copy(board.asked.data(), board.asked.size() - 1);
    board.asked[query.text.size()] = 0;
    const QueryLie lie = board.query_lie;
    if (lie == QueryLie::death) ::raise(SIGKILL);
    const bool read = query.what == VFIO_PCI_HOOKS_QUERY_READ;
    const int32_t answer = read ? 0 : board.query_answer.load();
    const std::string text = read ? board.version.data() : answer == 0 ? "" : board.reason.data();
    if (lie == QueryLie::none) {
      ret = next_query(channel, query, -1, query.id, answer, text);
      continue;
    }
    const struct {
      QueryLie lie;
      uint64_t id;
      int32_t answer;
      std::string text;
    } lies[] = {
        {QueryLie::nonsense, query.id, 0, "caf\xc3\xa9\x01"},
        {QueryLie::length, query.id, 0, std::string(VFIO_PCI_HOOKS_VERSION_LEN, 'x')},
        {QueryLie::stranger, query.id + 1, 0, text},
        {QueryLie::errno_, query.id, -4095, text},
    };
    ret = -1;
    Query other;
    for (const auto& one : lies)
      if (one.lie == lie && next_query(channel, other, 0, one.id, one.answer, one.text) == EINVAL) ++board.refused_queries;
  }
}

}  // namespace

vfio_pci_hooks_parameter parameter(const std::string& name, const std::string& value, const std::string& allowed,
                                   uint32_t flags) {
  vfio_pci_hooks_parameter p{};
  p.flags = flags;
  const auto copy = [](auto& to, const std::string& text) { std::memcpy(to, text.data(), std::min(text.size(), sizeof to)); };
  copy(p.name, name);
  copy(p.value, value);
  copy(p.init_value, value);
  copy(p.off_value, value);
  copy(p.allowed_values, allowed);
  copy(p.description, "of the test");
  return p;
}

int next_query(int channel, Query& out, int timeout_ms, uint64_t answered, int32_t answer, const std::string& text) {
  std::array<char, VFIO_PCI_HOOKS_VERSION_LEN> buffer{};
  text.copy(buffer.data(), buffer.size());
  vfio_pci_hooks_next_query next{};
  next.argsz = sizeof next;
  next.answered = answered;
  next.answer = answer;
  next.length = static_cast<uint32_t>(text.size());
  next.timeout_ms = timeout_ms;
  next.text = reinterpret_cast<uintptr_t>(buffer.data());
  if (::ioctl(channel, VFIO_PCI_HOOKS_NEXT_QUERY, &next) != 0) return errno;
  out = {next.id, next.what, std::string(buffer.data(), next.length)};
  return 0;
}

namespace {

using Value = std::array<char, VFIO_PCI_HOOKS_VALUE_LEN>;

int parameters_call(int fd, unsigned long call, std::vector<Value>& values, uint32_t& nr) {
  vfio_pci_hooks_parameters parameters{};
  parameters.argsz = sizeof parameters;
  parameters.nr = static_cast<uint32_t>(values.size());
  parameters.values = reinterpret_cast<uintptr_t>(values.data());
  if (::ioctl(fd, call, &parameters) != 0) return errno;
  nr = parameters.nr;
  return 0;
}

}  // namespace

int get_parameters(int fd, std::vector<std::string>& out) {
  std::vector<Value> values(VFIO_PCI_HOOKS_MAX_PARAMETERS);
  uint32_t nr = 0;
  if (const int error = parameters_call(fd, VFIO_PCI_HOOKS_GET_PARAMETERS, values, nr)) return error;
  out.clear();
  for (uint32_t i = 0; i < nr; ++i) out.emplace_back(values[i].data());
  return 0;
}

int set_parameters(int session, const std::vector<std::string>& texts) {
  std::vector<Value> values(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) texts[i].copy(values[i].data(), values[i].size());
  uint32_t nr = 0;
  return parameters_call(session, VFIO_PCI_HOOKS_SET_PARAMETERS, values, nr);
}

int without_rights(const std::function<int()>& ask) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(255);
    ::_exit(ask());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

vfio_pci_hooks_address parse_address(const std::string& address) {
  unsigned domain = 0, bus = 0, slot = 0, function = 0;
  if (std::sscanf(address.c_str(), "%x:%x:%x.%u", &domain, &bus, &slot, &function) != 4)
    throw std::invalid_argument("no PCI address: " + address);
  return {domain, static_cast<uint8_t>(bus), static_cast<uint8_t>(slot << 3 | function), 0};
}

namespace {

// What the module accepts.
constexpr uint32_t kMostAccessLimitMs = 10000, kMostStateLimitMs = 600000;

// A limit that makes no sense stays what it is.
uint32_t slowed(uint32_t limit, uint32_t most) {
  return limit > most ? limit : std::min(limit * sysfs::slowness(), most);
}

}  // namespace

Control::Control() : fd_(::open(kControl, O_RDWR | O_CLOEXEC)) {
  if (fd_ < 0) raise(kControl);
}
Control::~Control() { ::close(fd_); }

int Control::define(const Definition& definition) const {
  std::vector<vfio_pci_hooks_handler> handlers(definition.handlers.size());
  for (size_t i = 0; i < handlers.size(); ++i)
    std::memcpy(handlers[i].name, definition.handlers[i].data(), std::min(definition.handlers[i].size(), sizeof handlers[i].name));
  vfio_pci_hooks_define define{};
  define.argsz = sizeof define;
  define.flags = definition.flags;
  define.address = parse_address(definition.address);
  define.vendor = definition.vendor;
  define.device = definition.device;
  define.guest_memory = definition.guest_memory;
  define.access_limit_ms = slowed(definition.access_limit_ms, kMostAccessLimitMs);
  define.state_limit_ms = slowed(definition.state_limit_ms, kMostStateLimitMs);
  define.shadow_size = definition.shadow_size;
  define.ioctls = definition.ioctls;
  define.device_features = definition.device_features;
  define.nr_handlers = static_cast<uint32_t>(handlers.size());
  define.handlers = reinterpret_cast<uintptr_t>(handlers.data());
  define.nr_ranges = static_cast<uint32_t>(definition.ranges.size());
  define.ranges = reinterpret_cast<uintptr_t>(definition.ranges.data());
  define.max_state = definition.flags & VFIO_PCI_HOOKS_DEFINE_MIGRATION ? definition.max_state : 0;
  define.stop = program(definition.stop);
  define.start = program(definition.start);
  define.reset = program(definition.reset);
  std::strncpy(define.model, definition.model.c_str(), sizeof define.model);
  define.nr_parameters = static_cast<uint32_t>(definition.parameters.size());
  define.parameters = reinterpret_cast<uintptr_t>(definition.parameters.data());
  return ::ioctl(fd_, VFIO_PCI_HOOKS_DEFINE, &define) == 0 ? 0 : errno;
}

int Control::undefine(const std::string& address) const {
  vfio_pci_hooks_undefine undefine{};
  undefine.argsz = sizeof undefine;
  undefine.address = parse_address(address);
  return ::ioctl(fd_, VFIO_PCI_HOOKS_UNDEFINE, &undefine) == 0 ? 0 : errno;
}

int Control::attach(const std::string& address) const {
  vfio_pci_hooks_attach attach{};
  attach.argsz = sizeof attach;
  attach.address = parse_address(address);
  return ::ioctl(fd_, VFIO_PCI_HOOKS_ATTACH, &attach) == 0 ? attach.fd : -errno;
}

vfio_pci_hooks_status Control::status(const std::string& address) const {
  vfio_pci_hooks_status status{};
  status.argsz = sizeof status;
  status.address = parse_address(address);
  if (::ioctl(fd_, VFIO_PCI_HOOKS_GET_STATUS, &status) != 0) raise("GET_STATUS " + address);
  return status;
}

Worker::Worker(const std::string& address, Board& board, const Serve& serve) {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) raise("pipe");
  pid_ = ::fork();
  if (pid_ < 0) raise("fork");
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Else it would hold open the device that the test closes.
    ::dup2(ready[1], 3);
    ::close_range(4, ~0u, 0);
    const Control control;
    int channel = control.attach(address);
    // The worker before this one may still be on its way out.
    for (int tries = 0; channel == -EBUSY && tries < 200; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      channel = control.attach(address);
    }
    if (channel < 0) ::_exit(3);
    if (::write(3, "", 1) != 1) ::_exit(4);
    ::close(3);
    if (serve) {
      serve(channel, board);
      ::_exit(0);
    }
    std::thread([channel, &board] { serve_queries(channel, board); }).detach();
    Server(channel, board).run();
  }
  ::close(ready[1]);
  char byte;
  const bool attached = ::read(ready[0], &byte, 1) == 1;
  ::close(ready[0]);
  if (!attached) {
    kill();
    throw std::runtime_error("the worker could not attach to " + address);
  }
}

Worker::~Worker() { kill(); }

void Worker::signal(int number) { ::kill(pid_, number); }

void Worker::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

int Worker::ended_by() {
  int status = 0;
  for (int tries = 0; tries < 1000; ++tries) {
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return -1;
}

bool Worker::is_stopped() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
  std::string pid, name, state;
  return file >> pid >> name >> state && state == "T";
}

void UnmapBoard::operator()(Board* board) const { ::munmap(board, sizeof *board); }

SharedBoard shared_board() {
  void* at = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) raise("mmap");
  return SharedBoard(new (at) Board);
}

uint8_t pattern(uint64_t position) { return static_cast<uint8_t>(position ^ (position >> 8) * 31 ^ (position >> 16) * 7); }

}  // namespace hookline::kernel_test
