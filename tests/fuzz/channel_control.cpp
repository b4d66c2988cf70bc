// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <grp.h>
#include <linux/vfio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "channel_moves.hpp"

namespace hookline::fuzz {
namespace {

using kernel_test::Control;
using kernel_test::Definition;
using kernel_test::parse_address;

struct Office {
  Office(std::string is_bound, std::string is_unbound, bool has_rights)
      : bound(std::move(is_bound)), unbound(std::move(is_unbound)), rights(has_rights) {}
  std::string bound, unbound;
  bool rights;
  Control control;
  std::atomic<bool> stop{false};
};

/// RL3: without rights nothing is defined, undefined or attached.
int judged(Actor& a, const Office& o, const char* what, int result) {
  if (!o.rights && result != EPERM)
    violation(a.board(), "%s without any right: errno %d instead of EPERM", what, result);
  return result;
}

int features(Actor& a, Office& o) {
  vfio_pci_hooks_features arg{};
  arg.argsz = sizeof arg;
  return a.call(o.control.fd(), VFIO_PCI_HOOKS_GET_FEATURES, arg);
}

int status(Actor& a, Office& o) {
  vfio_pci_hooks_status arg{};
  arg.argsz = sizeof arg;
  arg.address = parse_address(a.random.one_in(2) ? o.bound : o.unbound);
  return a.call(o.control.fd(), VFIO_PCI_HOOKS_GET_STATUS, arg);
}

int define_well(Actor& a, Office& o) {
  const bool is_bound = a.random.one_in(4);
  const int result =
      judged(a, o, "DEFINE", o.control.define(any_definition(a.random, is_bound ? o.bound : o.unbound)));
  if (o.rights && is_bound && result != EBUSY && result != ENOMEM)
    violation(a.board(), "DEFINE of a function that is bound: errno %d instead of EBUSY", result);
  return result;
}

/// Everything in it can be wrong, the arrays it points to included.
int define_badly(Actor& a, Office& o) {
  vfio_pci_hooks_handler handlers[VFIO_PCI_HOOKS_MAX_HANDLERS + 1] = {};
  vfio_pci_hooks_range ranges[VFIO_PCI_HOOKS_MAX_RANGES + 1] = {};
  auto steps = harmless_steps(a.random, true);
  steps.resize(VFIO_PCI_HOOKS_MAX_STEPS + 1, steps.empty() ? vfio_pci_hooks_step{} : steps[0]);
  std::strcpy(handlers[0].name, VFIO_PCI_HOOKS_CHANNEL_NAME);
  if (a.random.one_in(8)) std::memset(handlers[1].name, 'x', sizeof handlers[1].name);
  for (auto& range : ranges) range = {0, 3, a.random.below(4096), 1 + a.random.below(64)};
  if (a.random.one_in(2)) ranges[a.random.below(4)].offset = a.random.odd();
  if (a.random.one_in(2)) ranges[a.random.below(4)].length = a.random.odd();
  if (a.random.one_in(2)) ranges[a.random.below(4)].region = static_cast<uint32_t>(a.random.below(12));
  if (a.random.one_in(2)) {
    const uint32_t value = static_cast<uint32_t>(a.random.odd());
    std::memcpy(reinterpret_cast<uint8_t*>(&steps[a.random.below(4)]) + 4 * a.random.below(5), &value,
                sizeof value);
  }
  vfio_pci_hooks_define arg{};
  arg.argsz = sizeof arg;
  arg.address = parse_address(o.unbound);
  arg.vendor = 0x8086, arg.device = 0x10ca;
  arg.access_limit_ms = arg.state_limit_ms = 100;
  arg.nr_handlers = static_cast<uint32_t>(1 + a.random.below(2));
  arg.handlers = a.random.one_in(16) ? a.random.odd() : reinterpret_cast<uintptr_t>(handlers);
  arg.nr_ranges = static_cast<uint32_t>(a.random.below(std::size(ranges) + 1));
  arg.ranges = a.random.one_in(16) ? a.random.odd() : reinterpret_cast<uintptr_t>(ranges);
  arg.max_state = a.random.odd();
  std::array<vfio_pci_hooks_parameter, VFIO_PCI_HOOKS_MAX_PARAMETERS + 1> parameters;
  for (size_t i = 0; i < parameters.size(); ++i)
    parameters[i] = kernel_test::parameter("p" + std::to_string(i), "1", "0-3");
  if (a.random.one_in(2)) {
    auto* bytes = reinterpret_cast<uint8_t*>(&parameters[a.random.below(4)]);
    bytes[a.random.below(sizeof parameters[0])] = static_cast<uint8_t>(a.random.next());
  }
  arg.flags = VFIO_PCI_HOOKS_DEFINE_MIGRATION;
  std::memset(arg.model, 'm', a.random.below(sizeof arg.model + 1));
  arg.nr_parameters = static_cast<uint32_t>(a.random.below(parameters.size() + 1));
  arg.parameters = a.random.one_in(16) ? a.random.odd() : reinterpret_cast<uintptr_t>(parameters.data());
  for (auto* program : {&arg.stop, &arg.start, &arg.reset})
    *program = {static_cast<uint32_t>(a.random.below(VFIO_PCI_HOOKS_MAX_STEPS + 2)), 0,
                a.random.one_in(16) ? a.random.odd() : reinterpret_cast<uintptr_t>(steps.data())};
  return judged(a, o, "DEFINE", a.call(o.control.fd(), VFIO_PCI_HOOKS_DEFINE, arg));
}

int undefine(Actor& a, Office& o) {
  vfio_pci_hooks_undefine arg{};
  arg.argsz = sizeof arg;
  arg.address = parse_address(a.random.one_in(2) ? o.bound : o.unbound);
  return judged(a, o, "UNDEFINE", a.call(o.control.fd(), VFIO_PCI_HOOKS_UNDEFINE, arg));
}

int attach(Actor& a, Office& o) {
  vfio_pci_hooks_attach arg{};
  arg.argsz = sizeof arg;
  arg.address = parse_address(a.random.one_in(2) ? o.bound : o.unbound);
  const int result = judged(a, o, "ATTACH", a.call(o.control.fd(), VFIO_PCI_HOOKS_ATTACH, arg));
  if (result == 0 && arg.fd > 2) ::close(arg.fd);
  return result;
}

int unload(Actor& a, Office& o) {
  if (syscall(SYS_delete_module, "vfio_pci_hooks", 04000 /* O_NONBLOCK */) != 0) return errno;
  violation(a.board(), "the module unloaded under %s, which is bound to it", o.bound.c_str());
  return 0;
}

int wrong_call(Actor& a, Office& o) {
  std::array<uint32_t, 64> argument{};
  argument[0] = static_cast<uint32_t>(a.random.odd());
  const unsigned long request =
      _IOC(a.random.below(4), VFIO_PCI_HOOKS_IOC_TYPE, a.random.below(64), a.random.below(400));
  return a.call(o.control.fd(), request, argument);
}

std::string migration_file(Actor& a, const Office& o) {
  static constexpr const char* kFiles[] = {"migration_version", "migration_version", "migration/model",
                                           "migration/p0/value", "migration/p1/value", "migration/p1/allowed_values"};
  return "/sys/bus/pci/devices/" + (a.random.one_in(4) ? o.unbound : o.bound) + "/" + a.random.of(kFiles);
}

int read_migration_file(Actor& a, Office& o) {
  const int fd = ::open(migration_file(a, o).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const size_t size = a.random.one_in(2) ? 8192 : a.random.below(100);
  const ssize_t got = ::pread(fd, a.buffer(size), size, a.random.one_in(8) ? static_cast<off_t>(a.random.odd()) : 0);
  const int result = got < 0 ? errno : 0;
  ::close(fd);
  return result;
}

/// RL3: whoever has no right does not even open one for writing.
int write_migration_file(Actor& a, Office& o) {
  const std::string path = migration_file(a, o);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  if (!o.rights) violation(a.board(), "%s opened for writing without any right", path.c_str());
  char text[5000];
  const size_t size = a.random.one_in(4) ? a.random.below(sizeof text) : 1;
  std::memset(text, static_cast<int>('0' + a.random.below(4)), sizeof text);
  if (a.random.one_in(8)) text[a.random.below(sizeof text)] = static_cast<char>(a.random.next());
  const ssize_t put = ::write(fd, a.random.one_in(8) ? a.buffer(size) : text, size);
  const int result = put < 0 ? errno : 0;
  ::close(fd);
  return result;
}

constexpr Move<Office> kMoves[] = {
    {6, "control: GET_FEATURES", features},    {12, "control: GET_STATUS", status},
    {6, "control: DEFINE", define_well},       {10, "control: DEFINE, bent", define_badly},
    {4, "control: UNDEFINE", undefine},        {3, "control: ATTACH", attach},
    {1, "control: unload the module", unload}, {6, "control: unknown ioctl", wrong_call},
    {8, "sysfs: read", read_migration_file},   {8, "sysfs: write", write_migration_file},
};
constexpr size_t kTable = 2, kTableWithoutRights = 3;

vfio_pci_hooks_step step(uint8_t op, uint32_t offset) {
  vfio_pci_hooks_step s{};
  s.op = op;
  s.width = 4;
  s.offset = offset;
  return s;
}

}  // namespace

std::vector<vfio_pci_hooks_step> harmless_steps(Random& random, bool may_wait) {
  std::vector<vfio_pci_hooks_step> steps;
  for (auto left = random.below(6); left; --left) {
    // FILL, or one of the others, of which the last two wait.
    const auto op = static_cast<uint8_t>(random.one_in(8) ? VFIO_PCI_HOOKS_STEP_FILL : 1 + random.below(may_wait ? 6 : 4));
    auto s = step(op, random.one_in(2) ? 0x800 + 4 * static_cast<uint32_t>(random.below(16)) : 0x1680);
    s.value = static_cast<uint32_t>(random.odd()) & 0xfffe;
    s.mask = static_cast<uint32_t>(random.odd());
    s.slot = static_cast<uint8_t>(random.below(VFIO_PCI_HOOKS_SAVED));
    if (op == VFIO_PCI_HOOKS_STEP_FILL) s.mask = 4;
    if (op == VFIO_PCI_HOOKS_STEP_POLL) {
      s.value = s.mask = 0;
      // Now and then one that can never be: the arc fails.
      if (random.one_in(16)) s.value = 1;
    }
    if (op == VFIO_PCI_HOOKS_STEP_POLL || op == VFIO_PCI_HOOKS_STEP_DELAY)
      s.timeout_us = static_cast<uint32_t>(random.below(5000));
    steps.push_back(s);
  }
  return steps;
}

Definition any_definition(Random& random, const std::string& address) {
  Definition d;
  d.address = address;
  d.flags = random.one_in(8) ? 0 : VFIO_PCI_HOOKS_DEFINE_MIGRATION;
  if (random.one_in(3)) d.flags |= VFIO_PCI_HOOKS_DEFINE_FAIL;
  d.guest_memory = static_cast<uint32_t>(random.below(3));
  d.access_limit_ms = static_cast<uint32_t>(random.one_in(4) ? 1 + random.below(20) : 50 + random.below(300));
  d.state_limit_ms = static_cast<uint32_t>(random.one_in(4) ? 1 + random.below(50) : 100 + random.below(900));
  d.shadow_size = random.of({0u, 1u, 4096u, 4096u, 4097u, 65536u});
  d.max_state = random.one_in(4) ? 1 + random.below(1 << 20) : 16 << 20;
  d.ranges = {{0, VFIO_PCI_HOOKS_OP_READ | VFIO_PCI_HOOKS_OP_WRITE, 0x808, 8}};
  for (auto left = random.below(8); left; --left) {
    const bool config = random.one_in(4);
    const uint64_t offset = random.below(config ? 200 : 4000);
    d.ranges.push_back(
        {config ? 7u : 0u, 1 + static_cast<uint32_t>(random.below(3)), offset, 1 + random.below(40)});
  }
  // GET_INFO and what comes after region info, which the definition itself answers.
  if (random.one_in(2)) d.ioctls = static_cast<uint32_t>(random.next()) & 0x1fe80;
  if (random.one_in(2)) d.device_features = static_cast<uint32_t>(random.next());
  d.stop = harmless_steps(random, true);
  d.start = harmless_steps(random, true);
  d.reset = harmless_steps(random, false);
  if (d.flags & VFIO_PCI_HOOKS_DEFINE_MIGRATION && !random.one_in(4)) {
    d.model = "org.example/fuzz";
    for (auto left = random.below(4); left; --left)
      d.parameters.push_back(kernel_test::parameter("p" + std::to_string(d.parameters.size()), "1", "0-3",
                                                    static_cast<uint32_t>(random.below(2))));
  }
  return d;
}

void run_control(const std::string& bound, const std::string& unbound, bool rights, uint64_t seed,
                 Board& board, size_t first_thread) {
  interruptible();
  Arena arena;
  Office office(bound, unbound, rights);
  if (!rights && (setgroups(0, nullptr) != 0 || setresgid(65534, 65534, 65534) != 0 ||
                  setresuid(65534, 65534, 65534) != 0)) {
    std::perror("channel_fuzz: giving up all rights");
    _exit(1);
  }
  Board::Thread& me = board.threads[first_thread];
  me.pid = getpid(), me.tid = gettid(), me.since_ms = 0;
  Actor actor(seed, arena, board, me);
  std::thread scribbler([&] {
    for (Random random(seed + 1);;) {
      arena.scribble(random);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  // Paused: the module's answer to a question does not depend on how often it is asked, and the others need
  // the processor.
  play(actor, office, kMoves, rights ? kTable : kTableWithoutRights, office.stop,
       std::chrono::milliseconds(2));
  std::abort();
}

}  // namespace hookline::fuzz
