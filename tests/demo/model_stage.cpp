// SPDX-License-Identifier: Apache-2.0
//
// Two software models in a worker process each. This process is guest, VMM and wire: frames of one function reach the
// gateway, whose answers reach both functions a millisecond later.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <utility>

#include "tests/demo/model_protocol.hpp"
#include "tests/support/vfio_device.hpp"

namespace hookline::demo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr testing::Host kGateway{{0x52, 0x55, 0x0a, 0x00, 0x02, 0x02}, 0x0a000202};
constexpr auto kWireDelay = std::chrono::milliseconds(1);
constexpr uint64_t kIova = 0;

class Wire;

class ModelSide final : public Side {
 public:
  ModelSide(Wire& wire, uint32_t index, const ModelFiles& files, std::span<std::byte> memory);
  ~ModelSide() override;

  std::string name() const override { return "model " + std::to_string(index_); }
  void reset() override { ask({Message::reset}); }
  void enable() override { ask({Message::enable}); }
  void set_state(MigrationState state) override { ask({Message::set_state, 0, static_cast<uint64_t>(state)}); }
  PrecopySizes precopy_sizes() override { return {ask({Message::precopy_sizes}).head.value, 0}; }
  size_t read_state(std::span<std::byte> data) override {
    const Packet reply = ask({Message::read_state, 0, data.size()});
    std::copy(reply.bytes.begin(), reply.bytes.end(), data.begin());
    return reply.bytes.size();
  }
  void write_state(std::span<const std::byte> data) override { ask({Message::write_state}, data); }
  uint32_t wait(std::chrono::microseconds limit) override;
  uint64_t interrupts() const override { return interrupts_; }
  uint32_t read32(uint32_t offset) override {
    return static_cast<uint32_t>(ask({Message::read, 0, offset}).head.value);
  }
  void write32(uint32_t offset, uint32_t value) override { ask({Message::write, 0, offset, value}); }
  void pause() override {}

  int socket() const { return socket_.get(); }
  void deliver(std::span<const std::byte> frame) { send_packet(socket_.get(), {Message::receive}, frame); }
  /// Takes what the worker has told without being asked.
  void take_notices();

 private:
  Packet ask(const MessageHeader& request, std::span<const std::byte> bytes = {});
  Packet take_reply();
  void notice(const Packet& packet);

  Wire& wire_;
  uint32_t index_;
  vfio::Descriptor socket_;
  pid_t worker_ = -1;
  uint32_t pending_ = 0;
  uint64_t interrupts_ = 0;
};

class Wire {
 public:
  void connect(ModelSide& side) { sides_.push_back(&side); }

  void transmit(std::span<const std::byte> frame) {
    if (auto reply = testing::answer(kGateway, frame)) queue_.push_back({Clock::now() + kWireDelay, std::move(*reply)});
  }

  /// What has travelled long enough arrives, whether anybody listens or not.
  void deliver() {
    while (!queue_.empty() && queue_.front().due <= Clock::now()) {
      for (ModelSide* side : sides_) side->deliver(queue_.front().frame);
      queue_.pop_front();
    }
  }

  /// Moves frames and waits for more, not longer than that.
  void run(Clock::time_point end) {
    deliver();
    if (!queue_.empty()) end = std::min(end, queue_.front().due);
    std::vector<pollfd> polled;
    for (ModelSide* side : sides_) polled.push_back({side->socket(), POLLIN, 0});
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(std::max(end - Clock::now(), Clock::duration::zero()));
    const timespec time{left.count() / 1000000000, left.count() % 1000000000};
    if (::ppoll(polled.data(), polled.size(), &time, nullptr) > 0)
      for (ModelSide* side : sides_) side->take_notices();
  }

 private:
  struct Frame {
    Clock::time_point due;
    testing::Frame frame;
  };
  std::vector<ModelSide*> sides_;
  std::deque<Frame> queue_;
};

ModelSide::ModelSide(Wire& wire, uint32_t index, const ModelFiles& files, std::span<std::byte> memory)
    : wire_(wire), index_(index) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::system_error(errno, std::generic_category(), "socketpair");
  socket_ = vfio::Descriptor(ends[0]);
  vfio::Descriptor theirs(ends[1]);
  const pid_t client = ::getpid();
  worker_ = ::fork();
  if (worker_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (worker_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != client) ::_exit(1);
    socket_.reset();
    ::_exit(serve_model(theirs.get(), index, files, memory));
  }
  theirs.reset();
  take_reply();
  wire_.connect(*this);
}

ModelSide::~ModelSide() {
  socket_.reset();
  if (worker_ > 0) ::waitpid(worker_, nullptr, 0);
}

uint32_t ModelSide::wait(std::chrono::microseconds limit) {
  const auto end = Clock::now() + limit;
  do {
    wire_.run(end);
  } while (pending_ == 0 && Clock::now() < end);
  return std::exchange(pending_, 0);
}

void ModelSide::take_notices() {
  Packet packet;
  pollfd polled{socket_.get(), POLLIN, 0};
  while (::poll(&polled, 1, 0) > 0) {
    if (!receive_packet(socket_.get(), packet)) throw std::runtime_error(name() + ": its worker has ended");
    notice(packet);
  }
}

Packet ModelSide::ask(const MessageHeader& request, std::span<const std::byte> bytes) {
  wire_.deliver();
  if (!send_packet(socket_.get(), request, bytes)) throw std::runtime_error(name() + ": its worker has ended");
  return take_reply();
}

Packet ModelSide::take_reply() {
  Packet packet;
  for (;;) {
    if (!receive_packet(socket_.get(), packet)) throw std::runtime_error(name() + ": its worker has ended");
    if (packet.head.what == Message::reply) break;
    notice(packet);
  }
  if (packet.head.code != 0)
    throw std::runtime_error(
        name() + ": " + std::string(reinterpret_cast<const char*>(packet.bytes.data()), packet.bytes.size()));
  return packet;
}

void ModelSide::notice(const Packet& packet) {
  if (packet.head.what == Message::interrupt) {
    ++interrupts_;
    pending_ |= 1u << packet.head.value;
  } else if (packet.head.what == Message::transmit) {
    wire_.transmit(packet.bytes);
  }
}

vfio::Memory guest_memory() {
  auto memory = vfio::Memory::create(testing::VfDriver::kMemoryBytes);
  if (!memory) throw std::runtime_error(memory.error().text);
  return std::move(*memory);
}

class ModelStage final : public Stage {
 public:
  explicit ModelStage(const ModelFiles& files)
      : source_(wire_, 0, files, memory_.bytes()), destination_(wire_, 1, files, memory_.bytes()) {}

  Side& source() override { return source_; }
  Side& destination() override { return destination_; }
  testing::DmaMemory memory() override { return {memory_.bytes(), kIova}; }
  std::optional<std::string> pf_driver() override { return {}; }
  std::optional<std::string> kernel() override { return {}; }

 private:
  vfio::Memory memory_ = guest_memory();
  Wire wire_;
  ModelSide source_, destination_;
};

}  // namespace

std::unique_ptr<Stage> make_model_stage(const ModelFiles& files) { return std::make_unique<ModelStage>(files); }

}  // namespace hookline::demo
