// SPDX-License-Identifier: Apache-2.0
//
// Two VFs of one PF in one container of this process, as a VMM would hold them.
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "tests/demo/side.hpp"
#include "tests/support/sysfs.hpp"
#include "tests/support/vfio_device.hpp"
#include "tests/support/vfio_nic.hpp"

namespace hookline::demo {
namespace {

constexpr uint64_t kIova = 0x10000000;

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

class VfioSide final : public Side {
 public:
  VfioSide(const vfio::Container& container, const std::string& address)
      : device_(must(vfio::Device::open(container, address))), nic_(device_) {
    if (!(must(device_.migration_flags()) & VFIO_MIGRATION_PRE_COPY)) throw std::runtime_error(address + ": no PRE_COPY");
  }

  std::string name() const override { return device_.address(); }
  void reset() override { must(device_.reset()); }
  void enable() override { nic_.enable(); }

  void set_state(MigrationState state) override {
    vfio::Descriptor stream = must(device_.set_state(static_cast<uint32_t>(state)));
    // From PRE_COPY to STOP_COPY the stream goes on in the same descriptor.
    if (stream || state == MigrationState::stop || state == MigrationState::running) stream_ = std::move(stream);
  }

  PrecopySizes precopy_sizes() override {
    const vfio_precopy_info info = must(vfio::precopy_info(stream_));
    return {info.initial_bytes, info.dirty_bytes};
  }

  size_t read_state(std::span<std::byte> data) override {
    const ssize_t got = ::read(stream_.get(), data.data(), data.size());
    if (got < 0 && errno == ENOMSG) return 0;
    if (got < 0) throw std::system_error(errno, std::generic_category(), name() + ": reading the device state");
    return static_cast<size_t>(got);
  }

  void write_state(std::span<const std::byte> data) override {
    while (!data.empty()) {
      const ssize_t done = ::write(stream_.get(), data.data(), data.size());
      if (done < 0) throw std::system_error(errno, std::generic_category(), name() + ": writing the device state");
      data = data.subspan(static_cast<size_t>(done));
    }
  }

  uint32_t wait(std::chrono::microseconds limit) override { return nic_.wait(limit); }
  uint64_t interrupts() const override { return nic_.interrupts(); }
  uint32_t read32(uint32_t offset) override { return nic_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) override { nic_.write32(offset, value); }

 private:
  vfio::Device device_;
  testing::VfioNic nic_;
  vfio::Descriptor stream_;
};

class VfioStage final : public Stage {
 public:
  VfioStage(const std::string& source, const std::string& destination)
      : container_(must(vfio::Container::create())),
        memory_(must(vfio::Memory::create(testing::VfDriver::kMemoryBytes))),
        source_(container_, source),
        destination_(container_, destination),
        pf_(std::filesystem::canonical("/sys/bus/pci/devices/" + source + "/physfn").filename()) {
    must(container_.map_dma(kIova, memory_.bytes()));
  }

  Side& source() override { return source_; }
  Side& destination() override { return destination_; }
  testing::DmaMemory memory() override { return {memory_.bytes(), kIova}; }
  std::optional<std::string> pf_driver() override { return sysfs::driver_of(pf_); }
  std::optional<std::string> kernel() override {
    utsname name{};
    ::uname(&name);
    return name.release;
  }

 private:
  vfio::Container container_;
  vfio::Memory memory_;
  VfioSide source_, destination_;
  std::string pf_;
};

}  // namespace

std::unique_ptr<Stage> make_vfio_stage(const std::string& source, const std::string& destination) {
  return std::make_unique<VfioStage>(source, destination);
}

}  // namespace hookline::demo
