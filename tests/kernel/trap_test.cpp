// SPDX-License-Identifier: Apache-2.0
//
// Trapped ranges: they reach the worker, nothing else does, no way leads around them, and a worker has the rights of the
// open it serves and no more.
#include <linux/pci_regs.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <cstring>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

using namespace std::chrono_literals;

class TrapTest : public HooksTest {
 protected:
  // Defined, bound, attached, open and served.
  void start(const Definition& definition) {
    define_and_bind(definition);
    worker_ = std::make_unique<Worker>(vf_, *board_);
    guest_ = std::make_unique<Guest>(*container_, vf_);
    ASSERT_TRUE(wait_served(vf_));
  }
  void TearDown() override {
    guest_.reset();
    worker_.reset();
    HooksTest::TearDown();
  }

  int ioeventfd(uint64_t offset) const {
    const vfio::Descriptor event(::eventfd(0, EFD_CLOEXEC));
    vfio_device_ioeventfd request{};
    request.argsz = sizeof request;
    request.flags = VFIO_DEVICE_IOEVENTFD_32;
    request.offset = offset;
    request.fd = event.get();
    return ::ioctl(guest_->device.fd(), VFIO_DEVICE_IOEVENTFD, &request) == 0 ? 0 : errno;
  }

  SharedBoard board_ = shared_board();
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Guest> guest_;
};

TEST_F(TrapTest, CH1_OnlyTheTrappedBytesReachTheWorker) {
  start(migratable(vf_));
  uint32_t value = 0;
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(value, 0x600d600du);
  EXPECT_EQ(board_->reads, 1u);
  EXPECT_EQ(board_->last_offset, kTrapped);
  EXPECT_EQ(board_->last_length, 4u);

  EXPECT_EQ(guest_->read32(kTrapped - 4, value), 0);
  EXPECT_EQ(guest_->read32(kTrapped + 8, value), 0);
  EXPECT_EQ(guest_->read32(kStatus, value), 0);
  EXPECT_NE(value, 0u) << "STATUS of the VF reads as zero";
  EXPECT_EQ(board_->reads, 1u);
  EXPECT_EQ(control_.status(vf_).accesses, 1u);
}

TEST_F(TrapTest, CH1_AccessThatSpansTheEdgeIsCutThere) {
  start(migratable(vf_));
  ASSERT_EQ(guest_->write32(kTrapped - 4, 0x11111111), 0);
  std::array<uint32_t, 4> words{};
  ASSERT_TRUE(guest_->device.read(0, kTrapped - 4, std::as_writable_bytes(std::span(words))));
  EXPECT_EQ(words[0], 0x11111111u);
  EXPECT_EQ(words[1], 0x600d600du);
  EXPECT_EQ(words[2], 0x600d600du);
  EXPECT_GE(board_->reads, 1u);
}

TEST_F(TrapTest, CH1_TrappedPageIsNotMappedAndItsNeighboursAre) {
  start(migratable(vf_));
  const auto region = guest_->device.region(VFIO_PCI_BAR0_REGION_INDEX).value();
  ASSERT_TRUE(region.flags & VFIO_REGION_INFO_FLAG_MMAP);
  ASSERT_TRUE(region.sparse);
  EXPECT_EQ(*region.sparse, (std::vector<vfio::Area>{{kPage, region.size - kPage}}));

  for (const auto& [offset, size] : {std::pair<uint64_t, uint64_t>{0, kPage}, {0, region.size}, {0, 2 * kPage}}) {
    auto mapping = guest_->device.map(VFIO_PCI_BAR0_REGION_INDEX, offset, size);
    ASSERT_FALSE(mapping) << "a mapping of " << size << " bytes from " << offset << " holds the trapped page";
    EXPECT_EQ(mapping.error().code, EINVAL);
  }
  auto mapping = guest_->device.map(VFIO_PCI_BAR0_REGION_INDEX, kPage, region.size - kPage);
  ASSERT_TRUE(mapping) << mapping.error().text;
  // RDLEN of queue 0 through the mapping and through read() is the same register.
  mapping->word(0x2808 - kPage) = 0x400;
  uint32_t value = 0;
  EXPECT_EQ(guest_->read32(0x2808, value), 0);
  EXPECT_EQ(value, 0x400u);
  EXPECT_EQ(board_->reads, 0u);
}

TEST_F(TrapTest, CH1_MsixTableIsLeftOutOfWhatQemuMaps) {
  start(migratable(vf_));
  const auto region = guest_->device.region(VFIO_PCI_BAR3_REGION_INDEX).value();
  for (const vfio::Area& area : region.mappable()) EXPECT_NE(area.offset, 0u);
}

// With traps there is none at all: what the kernel could check is not what vfio-pci would read afterwards.
TEST_F(TrapTest, CH1_IoeventfdLeadsAroundNoTrap) {
  start(migratable(vf_));
  EXPECT_EQ(ioeventfd(kTrapped), EINVAL);
  EXPECT_EQ(ioeventfd(0x3818), ENOTTY);
}

// An ioeventfd writes where nobody sees the page touched.
TEST_F(TrapTest, CH1_ADeviceThatMigratesHasNoIoeventfdAlsoWithoutATrap) {
  Definition definition = migratable(vf_);
  definition.ranges.clear();
  start(definition);
  EXPECT_EQ(ioeventfd(0x3818), ENOTTY);
}

TEST_F(TrapTest, CH1_WithoutTrapsAndMigrationIoeventfdsAreVfioPcis) {
  Definition definition = migratable(vf_);
  definition.ranges.clear();
  definition.flags = 0;
  start(definition);
  EXPECT_EQ(ioeventfd(0x3818), 0);
}

TEST_F(TrapTest, CH2_AnswersOfAReader) {
  start(migratable(vf_));
  board_->read_answer = VFIO_PCI_HOOKS_PASS;
  ASSERT_EQ(guest_->write32(kTrapped, 0x12345678), 0);  // passes by itself
  uint32_t value = 0;
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(value, 0x12345678u) << "the device's own answer";
  board_->read_answer = VFIO_PCI_HOOKS_HANDLED;
  board_->read_value = 42;
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(value, 42u);
  board_->read_answer = -EXDEV;
  EXPECT_EQ(guest_->read32(kTrapped, value), EXDEV);
}

TEST_F(TrapTest, CH2_AnswersOfAWriter) {
  start(migratable(vf_));
  board_->read_answer = VFIO_PCI_HOOKS_PASS;
  uint32_t value = 0;
  ASSERT_EQ(guest_->write32(kTrapped, 1), 0);
  board_->write_answer = VFIO_PCI_HOOKS_HANDLED;
  EXPECT_EQ(guest_->write32(kTrapped, 2), 0);
  EXPECT_EQ(board_->last_value, 2u);
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(value, 1u) << "a handled write must not reach the device";
  board_->write_answer = -EXDEV;
  EXPECT_EQ(guest_->write32(kTrapped, 3), EXDEV);
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(value, 1u);
}

TEST_F(TrapTest, CH1_ConfigSpaceCanBeTrapped) {
  Definition definition = migratable(vf_);
  definition.ranges = {{VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_HOOKS_OP_READ, PCI_REVISION_ID, 1}};
  start(definition);
  board_->read_value = 0x77;
  EXPECT_EQ(guest_->device.read<uint8_t>(VFIO_PCI_CONFIG_REGION_INDEX, PCI_REVISION_ID).value(), 0x77);
  EXPECT_EQ(guest_->device.read<uint16_t>(VFIO_PCI_CONFIG_REGION_INDEX, PCI_VENDOR_ID).value(), 0x8086);
  EXPECT_EQ(board_->reads, 1u);
}

struct MemoryRight {
  const char* name;
  uint32_t right;
  int read, write;
};

class MemoryTest : public TrapTest, public ::testing::WithParamInterface<MemoryRight> {};

TEST_P(MemoryTest, RL3_GuestMemoryOnlyAsGranted) {
  constexpr uint64_t kIova = 0x10000000;
  auto memory = vfio::Memory::create(2 * kPage);
  const uint64_t secret = 0x1122334455667788;
  std::memcpy(memory->bytes().data(), &secret, sizeof secret);
  Definition definition = migratable(vf_);
  definition.guest_memory = GetParam().right;
  start(definition);
  ASSERT_TRUE(container_->map_dma(kIova, memory->bytes()));

  board_->probe_iova = kIova;
  uint32_t value = 0;
  ASSERT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_EQ(board_->iova_read, GetParam().read);
  EXPECT_EQ(board_->iova_write, GetParam().write);
  EXPECT_EQ(board_->iova_value, GetParam().read == 0 ? secret : 0);
  uint64_t now = 0;
  std::memcpy(&now, memory->bytes().data(), sizeof now);
  EXPECT_EQ(now, GetParam().write == 0 ? secret + 1 : secret);

  // An address the guest has not mapped is no way to anything.
  board_->probe_iova = kIova + 2 * kPage;
  ASSERT_EQ(guest_->read32(kTrapped, value), 0);
  EXPECT_NE(board_->iova_read, 0);
  EXPECT_NE(board_->iova_write, 0);
}

INSTANTIATE_TEST_SUITE_P(Right, MemoryTest,
                         ::testing::Values(MemoryRight{"None", VFIO_PCI_HOOKS_MEMORY_NONE, EPERM, EPERM},
                                           MemoryRight{"Read", VFIO_PCI_HOOKS_MEMORY_READ, 0, EPERM},
                                           MemoryRight{"Write", VFIO_PCI_HOOKS_MEMORY_WRITE, 0, 0}),
                         [](const auto& right) { return right.param.name; });

TEST_F(TrapTest, RL3_NextOpenFindsZeroedPagesAndNoRights) {
  start(migratable(vf_));
  ASSERT_EQ(guest_->write32(kTrapped, 0xdeadbeef), 0);  // goes to the shadow
  uint32_t value = 0;
  ASSERT_EQ(guest_->read32(kTrapped, value), 0);         // fills a slot
  guest_.reset();
  ASSERT_TRUE(sysfs::wait_until([&] { return !(control_.status(vf_).flags & VFIO_PCI_HOOKS_STATUS_SERVED); }, 5s));
  guest_ = std::make_unique<Guest>(*container_, vf_);
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions == 2; }, 5s));
  EXPECT_TRUE(board_->pages_were_zero);
  EXPECT_FALSE(board_->session_was_again);
  EXPECT_EQ(board_->old_session_rw, ESHUTDOWN);
  EXPECT_EQ(guest_->read32(kTrapped, value), 0);
}

TEST_F(TrapTest, RL5_SuccessorFindsTheShadow) {
  start(migratable(vf_));
  ASSERT_EQ(guest_->write32(kTrapped, 0xdeadbeef), 0);
  worker_->kill();
  worker_ = std::make_unique<Worker>(vf_, *board_);
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions == 2; }, 5s));
  EXPECT_TRUE(board_->session_was_again);
  EXPECT_EQ(board_->shadow_word, 0xdeadbeefu);
  EXPECT_FALSE(control_.status(vf_).flags & VFIO_PCI_HOOKS_STATUS_INCOMPLETE);
}

TEST_F(TrapTest, MP4_ResetZeroesTheShadowAndIsTold) {
  start(migratable(vf_));
  ASSERT_EQ(guest_->write32(kTrapped, 0xdeadbeef), 0);
  const uint64_t resets = board_->resets;
  ASSERT_TRUE(guest_->device.reset());
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->resets > resets; }, 5s));
  worker_->kill();
  worker_ = std::make_unique<Worker>(vf_, *board_);
  ASSERT_TRUE(sysfs::wait_until([&] { return board_->sessions == 2; }, 5s));
  EXPECT_EQ(board_->shadow_word, 0u);
}

}  // namespace
}  // namespace hookline::kernel_test
