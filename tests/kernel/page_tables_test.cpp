// SPDX-License-Identifier: Apache-2.0
//
// A VMM that attaches page tables (HWPT) of its own, as QEMU does with iommufd=: worker and logger find the guest's memory where
// there is one address space that it can be, and are told nothing of any other.
#include <linux/iommufd.h>
#include <sys/ioctl.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

constexpr uint64_t kIova = 0x10000000, kSecret = 0x1122334455667788;

class PageTablesTest : public HooksTest {
 protected:
  void SetUp() override {
    before_ = std::getenv("HOOKLINE_VFIO") ? std::getenv("HOOKLINE_VFIO") : "";
    ASSERT_EQ(::setenv("HOOKLINE_VFIO", "hwpt", 1), 0);
    HooksTest::SetUp();
    memory_.emplace(std::move(*vfio::Memory::create(kPage)));
    std::memcpy(memory_->bytes().data(), &kSecret, sizeof kSecret);
    ASSERT_TRUE(container_->map_dma(kIova, memory_->bytes()));
    Definition definition = migratable(vf_);
    definition.guest_memory = VFIO_PCI_HOOKS_MEMORY_READ;
    define_and_bind(definition);
    worker_ = std::make_unique<Worker>(vf_, *board_);
    board_->probe_iova = kIova;
  }
  void TearDown() override {
    guest_.reset();
    worker_.reset();
    memory_.reset();
    HooksTest::TearDown();
    ::setenv("HOOKLINE_VFIO", before_.c_str(), 1);
  }

  void open() {
    guest_ = std::make_unique<Guest>(*container_, vf_);
    ASSERT_TRUE(wait_served(vf_));
  }
  uint32_t another_address_space() const {
    iommu_ioas_alloc alloc{};
    alloc.size = sizeof alloc;
    EXPECT_EQ(::ioctl(container_->fd(), IOMMU_IOAS_ALLOC, &alloc), 0);
    return alloc.out_ioas_id;
  }
  void destroy(uint32_t id) const {
    iommu_destroy destroy{};
    destroy.size = sizeof destroy;
    destroy.id = id;
    EXPECT_EQ(::ioctl(container_->fd(), IOMMU_DESTROY, &destroy), 0);
  }
  // What the worker gets when it reads the guest's memory: 0 or an errno.
  int read_by_worker() const {
    uint32_t value = 0;
    EXPECT_EQ(guest_->read32(kTrapped, value), 0);
    if (board_->iova_read == 0) {
      EXPECT_EQ(board_->iova_value, kSecret);
    }
    return board_->iova_read;
  }

  std::string before_;
  SharedBoard board_ = shared_board();
  std::optional<vfio::Memory> memory_;
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Guest> guest_;
};

TEST_F(PageTablesTest, RL3_MP5_TheOnlyAddressSpaceIsTheGuestsMemory) {
  open();
  EXPECT_EQ(read_by_worker(), 0);
  // It was found; what comes later does not matter.
  destroy(another_address_space());
  another_address_space();
  EXPECT_EQ(read_by_worker(), 0);
}

TEST_F(PageTablesTest, RL3_MP5_OneOfSeveralIsNotGuessed) {
  const uint32_t other = another_address_space();
  open();
  EXPECT_NE(read_by_worker(), 0);
  // Nothing of ours holds what was looked at.
  destroy(other);
  EXPECT_NE(read_by_worker(), 0);

  guest_.reset();
  open();
  EXPECT_EQ(read_by_worker(), 0);
}

TEST_F(PageTablesTest, RL3_MP5_AnAddressSpaceThatIsNamedNeedsNoSearch) {
  const uint32_t other = another_address_space();
  open();
  ASSERT_NE(read_by_worker(), 0);
  const auto attach = [&](uint32_t id) {
    vfio_device_attach_iommufd_pt request{};
    request.argsz = sizeof request;
    request.pt_id = id;
    return ::ioctl(guest_->device.fd(), VFIO_DEVICE_ATTACH_IOMMUFD_PT, &request) == 0 ? 0 : errno;
  };
  ASSERT_EQ(attach(*container_->ioas()), 0);
  EXPECT_EQ(read_by_worker(), 0);
  ASSERT_EQ(attach(other), 0);
  EXPECT_NE(read_by_worker(), 0) << "there is nothing mapped";
}

}  // namespace
}  // namespace hookline::kernel_test
