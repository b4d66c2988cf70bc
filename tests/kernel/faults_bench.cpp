// SPDX-License-Identifier: Apache-2.0
#include "tests/kernel/faults_bench.hpp"

#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include <fmt/format.h>

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

// Long enough for a worker on a busy emulated machine, short enough to be waited for in half of the cells.
constexpr uint32_t kLimitMs = 400;

Definition fault_definition(const std::string& address, uint16_t device_id) {
  constexpr uint32_t heart = kHeart;
  Definition definition = migratable(address);
  definition.device = device_id;
  definition.access_limit_ms = definition.state_limit_ms = kLimitMs;
  definition.max_state = kMaxState;
  definition.stop = {{VFIO_PCI_HOOKS_STEP_SAVE, 0, 4, 0, heart, 0, 0, 0}, {VFIO_PCI_HOOKS_STEP_MODIFY, 0, 4, 0, heart, 0xff, 0, 0}};
  definition.start = {{VFIO_PCI_HOOKS_STEP_RESTORE, 0, 4, 0, heart, 0, 0, 0}};
  definition.reset = {{VFIO_PCI_HOOKS_STEP_WRITE, 0, 4, 0, heart, 0, kFresh, 0}};
  return definition;
}

void must(const Result<void>& done) {
  if (!done) throw std::runtime_error(done.error().text);
}

void must(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

}  // namespace

std::vector<uint8_t> whole_state(uint32_t size) {
  std::vector<uint8_t> bytes(size);
  for (uint32_t i = 0; i < size; ++i) bytes[i] = pattern(i);
  return bytes;
}

Bench::Bench(std::string address, uint16_t device_id) : address_(std::move(address)), device_id_(device_id) { rebuild(); }

Bench::~Bench() {
  stream_.reset();
  guest_.reset();
  worker_.reset();
  container_.reset();
  (void)sysfs::release(address_);
  (void)control_.undefine(address_);
}

void Bench::rebuild() {
  stream_.reset();
  guest_.reset();
  worker_.reset();
  must(sysfs::release(address_));
  (void)control_.undefine(address_);
  if (!container_) container_.emplace(*vfio::Container::create());
  define_and_bind();
  start_worker();
  open();
}

void Bench::define_and_bind() {
  const int error = control_.define(fault_definition(address_, device_id_));
  if (error && error != EBUSY) throw std::system_error(error, std::generic_category(), "define " + address_);
  must(sysfs::bind(address_, "vfio-pci-hooks"));
}

void Bench::behave() {
  board_->lie = Lie::none;
  board_->hang_at = board_->die_at = 0;
  board_->pre_copy_bytes = kPreCopyState;
  board_->state_bytes = kWholeState;
  board_->save_at_once = kPiece;
}

void Bench::start_worker() {
  behave();
  worker_.reset();
  sessions_ = board_->sessions;
  worker_ = std::make_unique<Worker>(address_, *board_);
}

void Bench::wait_served() const {
  must(sysfs::wait_until(
           [&] { return board_->sessions > sessions_ && (status().flags & VFIO_PCI_HOOKS_STATUS_SERVED); }, 5s),
       "no worker serves the device");
}

void Bench::open() {
  sessions_ = board_->sessions;
  guest_ = std::make_unique<Guest>(*container_, address_);
  wait_served();
}

void Bench::reset() {
  must(guest_->device.reset());
  must(guest_->device.enable_memory_and_dma());
}

void Bench::prepare() {
  stream_.reset();
  const uint32_t whole = VFIO_PCI_HOOKS_STATUS_BOUND | VFIO_PCI_HOOKS_STATUS_OPEN | VFIO_PCI_HOOKS_STATUS_ATTACHED |
                         VFIO_PCI_HOOKS_STATUS_SERVED;
  if (!guest_ || status().flags != whole || state() != State::running) rebuild();
  mark();
}

void Bench::mark() {
  behave();
  in_ = State::running;
  moved_.clear();
  must(guest_->write32(kHeart, kBeating) == 0, "the device takes no write");
  must(heart() == kBeating, "the device does not hold what is written");
}

void Bench::enter(State state) {
  in_ = state;
  const uint32_t through = vfio_state(state == State::error ? State::resuming : state);
  auto reached = guest_->device.set_state(through);
  if (!reached) throw std::runtime_error(reached.error().text);
  stream_ = std::move(*reached);
  if (state == State::error) {
    must(!guest_->device.set_state(VFIO_DEVICE_STATE_STOP), "a stream that never began was loaded");
    stream_.reset();
  }
  must(this->state() == state, "the device is in another state");
  if (stream_) must(use() == 0, "the stream does not begin");
}

int Bench::use() {
  if (!stream_) {
    uint32_t value = 0;
    return guest_->read32(kTrapped, value);
  }
  std::array<uint8_t, kPiece> piece;
  if (in_ == State::resuming) {
    for (uint32_t i = 0; i < kPiece; ++i) piece[i] = pattern(moved_.size() + i);
    const ssize_t done = ::write(stream_.get(), piece.data(), piece.size());
    if (done < 0) return errno;
    moved_.insert(moved_.end(), piece.begin(), piece.begin() + done);
    return 0;
  }
  const ssize_t got = ::read(stream_.get(), piece.data(), piece.size());
  if (got < 0) return errno;
  moved_.insert(moved_.end(), piece.begin(), piece.begin() + got);
  return 0;
}

void Bench::go_on() {
  if (stream_ && in_ == State::resuming) {
    while (moved_.size() < kWholeState) must(use() == 0, "the stream does not go on");
  } else if (stream_) {
    auto copying = guest_->device.set_state(VFIO_DEVICE_STATE_STOP_COPY);
    must(copying.has_value(), "no STOP_COPY");
    for (size_t before = ~size_t{0}; before != moved_.size();) {
      before = moved_.size();
      must(use() == 0, "the stream does not go on");
    }
    must(moved_ == whole_state(kWholeState), "the stream is another than the worker gave");
  }
  auto running = guest_->device.set_state(VFIO_DEVICE_STATE_RUNNING);
  if (!running) throw std::runtime_error(running.error().text);
  stream_.reset();
}

State Bench::state() const {
  const uint32_t now = guest_ ? guest_->device.state().value_or(99) : status().mig_state;
  for (const State state : kStates)
    if (vfio_state(state) == now) return state;
  throw std::runtime_error(fmt::format("{} is no state", now));
}

uint32_t Bench::heart() const {
  uint32_t value = 0;
  const int error = guest_->read32(kHeart, value);
  if (error) throw std::system_error(error, std::generic_category(), "the device's register");
  return value;
}

Held Bench::held() const {
  Held held;
  held.references = std::stoi(*sysfs::read("/sys/module/vfio_pci_hooks/refcnt"));
  held.files = static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
  held.status = status().flags;
  return held;
}

}  // namespace hookline::kernel_test
