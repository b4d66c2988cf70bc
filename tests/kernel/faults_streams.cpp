// SPDX-License-Identifier: Apache-2.0
#include "tests/kernel/faults_streams.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>

#include <hookline/chain_descriptor.hpp>
#include <hookline/hook_channel.hpp>
#include <hookline/hook_serve.hpp>
#include <hookline/plugin.hpp>
#include <hookline/stream.hpp>

#include "tests/kernel/faults_subject.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

constexpr uint32_t kHeart = kMailboxMemory + 0x30, kPlain = kMailboxMemory + 0x34;
constexpr uint32_t kHeartBit = 0xff;

// The heart as everywhere in the matrix; a plain register is its state.
class Patient final : public MigrationOwner {
 public:
  explicit Patient(hookline::Device& dev) : dev_(dev) {}
  void save(SectionWriter& out) override {
    out.u32("heart", dev_.saved(0));
    out.u32("plain", dev_.read32(0, kPlain));
  }
  void load(SectionReader& in) override {
    heart_ = in.u32("heart", anything());
    plain_ = in.u32("plain", anything());
  }
  void apply() override {
    dev_.write32(0, kPlain, plain_);
    const hookline_step start[] = {hookline::write(0, kHeart, heart_)};
    dev_.start_once(start);
  }

 private:
  hookline::Device& dev_;
  uint32_t heart_ = 0, plain_ = 0;
};

constexpr PluginInfo patient_info(const char* model) {
  return {.name = "patient",
          .version = "1",
          .model = model,
          .migration_version = "1",
          .stop = {save(0, kHeart, 0), clear_bits(0, kHeart, kHeartBit)},
          .start = {restore(0, kHeart, 0)},
          .reset = {write(0, kHeart, kFresh), write(0, kPlain, 0)},
          .max_state = 64};
}
constexpr PluginInfo kInfo = patient_info("com.example/patient"), kForeignInfo = patient_info("com.example/other");
const hookline_plugin kPlugin = detail::describe<Patient>(kInfo), kForeignPlugin = detail::describe<Patient>(kForeignInfo);

class ServingThread {
 public:
  ServingThread(Channel channel, const Chain& chain)
      : channel_(std::move(channel)), thread_([this, &chain] { run(chain); }) {}
  ~ServingThread() {
    stop_ = true;
    thread_.join();
  }

 private:
  void run(const Chain& chain) {
    while (!stop_) {
      const auto session = channel_.wait_open(chain, false);
      if (!session) {
        std::this_thread::sleep_for(5ms);
        continue;
      }
      const auto device = OpenDevice::open(chain, **session, {});
      if (!device) return;
      (void)serve(**session, **device, {.should_stop = [this] { return stop_.load(); }, .idle_ms = 20});
    }
  }
  std::atomic<bool> stop_ = false;
  Channel channel_;
  std::thread thread_;
};

Bytes save_state(const vfio::Device& device) {
  Bytes stream, piece(4096);
  const auto data = device.set_state(VFIO_DEVICE_STATE_STOP_COPY);
  if (!data) throw std::runtime_error(data.error().text);
  for (;;) {
    const ssize_t got = ::read(data->get(), piece.data(), piece.size());
    if (got < 0) throw std::system_error(errno, std::generic_category(), "the stream of the source");
    if (got == 0) return stream;
    stream.insert(stream.end(), piece.begin(), piece.begin() + got);
  }
}

Bytes spoil(Bytes stream, Event event) {
  const auto half = static_cast<ptrdiff_t>(stream.size() / 2);
  switch (event) {
    case Event::stream_truncated: stream.pop_back(); break;
    case Event::stream_flipped: stream[static_cast<size_t>(half)] ^= std::byte{1}; break;
    case Event::stream_reordered: {
      const Chain own = *build_chain({*make_link(kPlugin)});
      const auto record = static_cast<ptrdiff_t>(StreamWriter::create(*migration_version(own, own.init_values(), ""))->pending());
      std::rotate(stream.begin() + record, stream.begin() + (record + static_cast<ptrdiff_t>(stream.size())) / 2, stream.end());
      break;
    }
    case Event::stream_foreign: {
      const Chain other = *build_chain({*make_link(kForeignPlugin)});
      auto writer = *StreamWriter::create(*migration_version(other, other.init_values(), ""));
      stream.resize(writer.pending());
      (void)writer.take(stream);
      break;
    }
    default: throw std::invalid_argument(name_of(event));
  }
  return stream;
}

// In one write, for where a write is cut does not matter.
int load_state(const vfio::Descriptor& data, const Bytes& stream) {
  const ssize_t done = ::write(data.get(), stream.data(), stream.size());
  return done < 0 ? errno : 0;
}

uint32_t read32(const vfio::Device& device, uint64_t offset) {
  return device.read<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX, offset).value_or(0);
}

}  // namespace

bool is_inside_stream(Event event) {
  return event == Event::stream_truncated || event == Event::stream_flipped || event == Event::stream_reordered ||
         event == Event::stream_foreign;
}

void run_stream_cell(const std::string& vf, Event event, const Outcome& outcome) {
  const Chain chain = *build_chain({*make_link(kPlugin)});
  const ControlDevice control = *ControlDevice::open();
  const vfio_pci_hooks_address address = parse_address(vf);
  const auto defined = control.define({.address = address, .vendor = 0x8086, .device = kVfId, .state_limit_ms = 60000}, chain);
  ASSERT_TRUE(defined) << defined.error().text;
  ASSERT_TRUE(sysfs::bind(vf, "vfio-pci-hooks"));
  {
    const ServingThread worker(std::move(*control.attach(address)), chain);
    const auto container = vfio::Container::create();
    const Guest guest(*container, vf);
    const vfio::Device& device = guest.device;
    ASSERT_TRUE(guest.write32(kHeart, kBeating) == 0 && guest.write32(kPlain, 0x600d) == 0);
    const Bytes good = save_state(device);
    ASSERT_TRUE(device.set_state(VFIO_DEVICE_STATE_STOP));

    auto data = device.set_state(VFIO_DEVICE_STATE_RESUMING);
    ASSERT_TRUE(data) << data.error().text;
    ASSERT_EQ(guest.write32(kPlain, 0xbad), 0);
    EXPECT_EQ(load_state(*data, spoil(good, event)), outcome.error) << strerrorname_np(outcome.error);
    EXPECT_EQ(device.state().value(), vfio_state(outcome.after));
    const bool scrubbed = outcome.device == Device::scrubbed;
    EXPECT_EQ(read32(device, kHeart), scrubbed ? kFresh : kStanding);
    EXPECT_EQ(read32(device, kPlain), scrubbed ? 0u : 0xbadu) << "nothing of the stream is on the device";
    if (outcome.error) {
      EXPECT_EQ(load_state(*data, good), outcome.error) << "a refusal is sticky";
    }
    EXPECT_FALSE(device.set_state(VFIO_DEVICE_STATE_RUNNING));
    EXPECT_EQ(device.state().value(), uint32_t{VFIO_DEVICE_STATE_ERROR});

    ASSERT_TRUE(device.reset());
    ASSERT_TRUE(device.enable_memory_and_dma());
    EXPECT_EQ(device.state().value(), uint32_t{VFIO_DEVICE_STATE_RUNNING});
    data = device.set_state(VFIO_DEVICE_STATE_RESUMING);
    ASSERT_TRUE(data);
    EXPECT_EQ(load_state(*data, good), 0);
    EXPECT_TRUE(device.set_state(VFIO_DEVICE_STATE_RUNNING));
    EXPECT_EQ(read32(device, kHeart), kBeating);
    EXPECT_EQ(read32(device, kPlain), 0x600du);
  }
  EXPECT_TRUE(sysfs::release(vf));
  EXPECT_TRUE(control.undefine(address));
}

}  // namespace hookline::kernel_test
