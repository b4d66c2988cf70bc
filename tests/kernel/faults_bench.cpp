// SPDX-License-Identifier: Apache-2.0
#include "tests/kernel/faults_bench.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include <fmt/format.h>

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

void must(const Result<void>& done) {
  if (!done) throw std::runtime_error(done.error().text);
}

void must(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

}  // namespace

Bench::Bench(std::unique_ptr<Subject> subject) : subject_(std::move(subject)) { rebuild(); }

Bench::~Bench() {
  stream_.reset();
  guest_.reset();
  worker_.reset();
  container_.reset();
  (void)sysfs::release(address());
  (void)control_.undefine(address());
}

void Bench::rebuild() {
  stream_.reset();
  guest_.reset();
  worker_.reset();
  must(sysfs::release(address()));
  (void)control_.undefine(address());
  if (!container_) container_.emplace(*vfio::Container::create());
  define_and_bind();
  start_worker();
  open();
}

void Bench::define_and_bind() {
  subject_->define(control_);
  must(sysfs::bind(address(), "vfio-pci-hooks"));
}

void Bench::behave() {
  board_->lie = Lie::none;
  board_->hang_at = board_->die_at = 0;
  subject_->behave(*board_);
}

void Bench::start_worker() {
  behave();
  worker_.reset();
  sessions_ = board_->sessions;
  worker_ = subject_->start_worker(*board_);
}

void Bench::wait_served() const {
  must(sysfs::wait_until(
           [&] { return board_->sessions > sessions_ && (status().flags & VFIO_PCI_HOOKS_STATUS_SERVED); }, 5s),
       "no worker serves the device");
}

void Bench::open() {
  sessions_ = board_->sessions;
  guest_ = std::make_unique<Guest>(*container_, address());
  wait_served();
  subject_->opened(*container_, *guest_);
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
  subject_->mark(*guest_);
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
  if (!stream_ || (in_ == State::resuming && !subject_->load_at_first())) return;
  do must(use() == 0, "the stream does not begin");
  while (in_ == State::resuming && moved_.size() < subject_->load_at_first());
  // What was written is not loaded yet, and what has to be there is what the stream's first part leaves.
  if (in_ == State::resuming && subject_->load_at_first() > subject_->load_piece())
    must(sysfs::wait_until([&] { return heart() == kHalf; }, 5s), "the first part of the stream is not loaded");
}

int Bench::use() {
  if (!stream_) return subject_->access(*guest_);
  if (in_ == State::resuming) {
    const auto left = subject_->to_load().subspan(moved_.size());
    const ssize_t done = ::write(stream_.get(), left.data(), std::min(left.size(), subject_->load_piece()));
    if (done < 0) return errno;
    moved_.insert(moved_.end(), left.begin(), left.begin() + done);
    return 0;
  }
  const size_t before = moved_.size();
  moved_.resize(before + subject_->read_piece());
  const ssize_t got = ::read(stream_.get(), moved_.data() + before, subject_->read_piece());
  moved_.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return got < 0 && errno != ENOMSG ? errno : 0;
}

void Bench::go_on() {
  if (stream_ && in_ == State::resuming) {
    while (!is_all_loaded()) must(use() == 0, "the stream does not go on");
    subject_->loaded();
  } else if (stream_) {
    auto copying = guest_->device.set_state(VFIO_DEVICE_STATE_STOP_COPY);
    must(copying.has_value(), "no STOP_COPY");
    use_up();
    must(subject_->is_whole(moved_), "the stream is another than the worker gave");
  }
  auto running = guest_->device.set_state(VFIO_DEVICE_STATE_RUNNING);
  if (!running) throw std::runtime_error(running.error().text);
  stream_.reset();
}

void Bench::use_up() {
  for (size_t before = ~size_t{0}; before != moved_.size();) {
    before = moved_.size();
    must(use() == 0, "the stream does not go on");
  }
}

void Bench::migrate() {
  mark();
  enter(subject_->begins_in());
  use_up();
  subject_->draw(*guest_);
  go_on();
  subject_->come_back(*guest_, moved_);
}

State Bench::state() const {
  const uint32_t now = guest_ ? guest_->device.state().value_or(99) : status().mig_state;
  for (const State state : kStates)
    if (vfio_state(state) == now) return state;
  throw std::runtime_error(fmt::format("{} is no state", now));
}

Held Bench::held() const {
  Held held;
  held.references = std::stoi(*sysfs::read("/sys/module/vfio_pci_hooks/refcnt"));
  held.files = static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
  held.status = status().flags;
  return held;
}

}  // namespace hookline::kernel_test
