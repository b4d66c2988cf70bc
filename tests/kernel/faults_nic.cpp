// SPDX-License-Identifier: Apache-2.0
//
// VFs of an 82576, and the card that has its bus for itself. One register, the heart, shows what the device does: the stop
// program saves it and clears its low byte, the start program restores it, the reset program gives it a value of its own.
#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "tests/kernel/faults_logging.hpp"
#include "tests/kernel/faults_subject.hpp"
#include "tests/kernel/kernel_module.hpp"

namespace hookline::kernel_test {
namespace {

constexpr uint64_t kHeart = kMailboxMemory + 0x30;
constexpr uint32_t kAnswered = 0x600d600d;  // to a trapped read, by the worker
constexpr uint32_t kPiece = 64, kPreCopyState = 1024, kWholeState = 2048;

// A card beside those that the machine has set up.
std::string whole_function() {
  const auto pfs = sysfs::test_pfs();
  for (const auto& function : std::filesystem::directory_iterator("/sys/bus/pci/devices")) {
    const std::string address = function.path().filename();
    if (sysfs::read(function.path() / "device").value_or("") != fmt::format("{:#06x}", kPfId)) continue;
    if (std::find(pfs.begin(), pfs.end(), address) == pfs.end()) return address;
  }
  throw std::runtime_error("needs one more card on a port of its own, see tests/kernel/CMakeLists.txt");
}

class Nic : public Subject {
 public:
  Nic(std::string address, uint16_t device_id) : Subject(std::move(address)), device_id_(device_id) {}

  void define(const Control& control) const override {
    const int error = control.define(definition());
    if (error && error != EBUSY) throw std::system_error(error, std::generic_category(), "define " + address());
  }
  std::unique_ptr<Worker> start_worker(Board& board) const override { return std::make_unique<Worker>(address(), board); }
  void behave(Board& board) const override {
    board.pre_copy_bytes = kPreCopyState;
    board.state_bytes = kWholeState;
    board.save_at_once = kPiece;
  }

  void mark(const Guest& guest) override {
    load_ = state_;
    if (guest.write32(kHeart, kBeating) != 0) throw std::runtime_error("the device takes no write");
  }
  uint32_t heart(const Guest& guest) const override {
    uint32_t value = 0;
    const int error = guest.read32(kHeart, value);
    if (error) throw std::system_error(error, std::generic_category(), "the device's register");
    return value;
  }
  uint32_t standing() const override { return kStanding; }
  int access(const Guest& guest) const override {
    uint32_t value = 0;
    return guest.read32(kTrapped, value);
  }
  bool is_answered(const Guest& guest, const Board&) const override {
    uint32_t value = 0;
    return guest.read32(kTrapped, value) == 0 && value == kAnswered;
  }

  size_t read_piece() const override { return kPiece; }
  size_t pre_copy_size() const override { return kPreCopyState; }
  std::span<const uint8_t> to_load() const override { return load_; }
  size_t load_at_first() const override { return kPiece; }
  size_t load_piece() const override { return kPiece; }
  bool is_whole(std::span<const uint8_t> saved) const override { return std::ranges::equal(saved, state_); }
  void spoil(Event event) override {
    if (event != Event::stream_oversized) throw std::invalid_argument(name_of(event));
    load_ = state_of(2 * kMaxNicState);
  }

 protected:
  virtual Definition definition() const {
    constexpr uint32_t heart = kHeart;
    Definition definition = migratable(address());
    definition.device = device_id_;
    definition.access_limit_ms = definition.state_limit_ms = kLimitMs;
    definition.max_state = kMaxNicState;
    definition.stop = {{VFIO_PCI_HOOKS_STEP_SAVE, 0, 4, 0, heart, 0, 0, 0}, {VFIO_PCI_HOOKS_STEP_MODIFY, 0, 4, 0, heart, 0xff, 0, 0}};
    definition.start = {{VFIO_PCI_HOOKS_STEP_RESTORE, 0, 4, 0, heart, 0, 0, 0}};
    definition.reset = {{VFIO_PCI_HOOKS_STEP_WRITE, 0, 4, 0, heart, 0, kFresh, 0}};
    return definition;
  }

 private:
  // Of a worker's state.
  static std::vector<uint8_t> state_of(uint32_t size) {
    std::vector<uint8_t> bytes(size);
    for (uint32_t i = 0; i < size; ++i) bytes[i] = pattern(i);
    return bytes;
  }

  const uint16_t device_id_;
  const std::vector<uint8_t> state_ = state_of(kWholeState);
  std::vector<uint8_t> load_ = state_;
};

// Its guest has posted buffers, and its VMM logs.
class LoggingNic final : public Nic {
 public:
  LoggingNic() : Nic(sysfs::test_vfs().at(0), kVfId) {}

  void opened(const vfio::Container& container, const Guest&) override {
    const auto mapped = container.map_dma(kDmaIova, memory_.bytes());
    if (!mapped && mapped.error().code != EEXIST) throw std::runtime_error(mapped.error().text);
  }
  void mark(const Guest& guest) override {
    Nic::mark(guest);
    post_buffers(guest.device, memory_.bytes());
  }
  std::shared_ptr<void> begin_vmm(const Guest& guest) override {
    post_buffers(guest.device, memory_.bytes());
    if (start_logging(guest.device, {{kDmaIova, kDmaSize}}) != 0) throw std::runtime_error("logging does not start");
    return nullptr;
  }

 protected:
  Definition definition() const override {
    Definition definition = Nic::definition();
    definition.handlers = {"82576-dirty-log", VFIO_PCI_HOOKS_CHANNEL_NAME};
    return definition;
  }

 private:
  const KernelModule module_{"handlers/vfio_pci_hooks_82576.ko", "vfio_pci_hooks_82576"};
  const vfio::Memory memory_ = std::move(*vfio::Memory::create(kDmaSize));
};

}  // namespace

std::unique_ptr<Subject> make_nic(bool lone) {
  return std::make_unique<Nic>(lone ? whole_function() : sysfs::test_vfs().at(0), lone ? kPfId : kVfId);
}
std::unique_ptr<Subject> make_logging_nic() { return std::make_unique<LoggingNic>(); }

}  // namespace hookline::kernel_test
