// SPDX-License-Identifier: Apache-2.0
//
// Who may define and attach, what a definition may say, and how long it lives.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <functional>

#include "tests/kernel/fixture.hpp"

namespace hookline::kernel_test {
namespace {

class DefinitionTest : public HooksTest {};

TEST_F(DefinitionTest, RL3_DefiningAndAttachingNeedCapSysAdmin) {
  // Even with the descriptor of the control device in its hands.
  EXPECT_EQ(without_rights([&] { return control_.define(migratable(vf_)); }), EPERM);
  EXPECT_EQ(without_rights([&] { return control_.undefine(vf_); }), EPERM);
  define_and_bind(migratable(vf_));
  EXPECT_EQ(without_rights([&] { return -control_.attach(vf_); }), EPERM);
  EXPECT_EQ(without_rights([] { return ::open("/dev/vfio-pci-hooks", O_RDWR) < 0 ? errno : 0; }), EACCES);
}

TEST_F(DefinitionTest, RL3_OneAttacherAtATime) {
  EXPECT_EQ(control_.attach(vf_), -ENOENT);
  ASSERT_EQ(control_.define(migratable(vf_)), 0);
  EXPECT_EQ(control_.attach(vf_), -ENXIO);
  ASSERT_TRUE(sysfs::bind(vf_, "vfio-pci-hooks"));
  const int first = control_.attach(vf_);
  ASSERT_GE(first, 0);
  EXPECT_EQ(::fcntl(first, F_GETFD), FD_CLOEXEC);
  EXPECT_TRUE(control_.status(vf_).flags & VFIO_PCI_HOOKS_STATUS_ATTACHED);
  EXPECT_EQ(control_.attach(vf_), -EBUSY);
  ::close(first);
  EXPECT_FALSE(control_.status(vf_).flags & VFIO_PCI_HOOKS_STATUS_ATTACHED);
  const int second = control_.attach(vf_);
  EXPECT_GE(second, 0);
  ::close(second);
}

TEST_F(DefinitionTest, CH1_DefinitionIsFrozenWhileBound) {
  EXPECT_EQ(control_.undefine(vf_), ENOENT);
  define_and_bind(migratable(vf_));
  EXPECT_EQ(control_.define(migratable(vf_)), EBUSY);
  EXPECT_EQ(control_.undefine(vf_), EBUSY);
  ASSERT_TRUE(sysfs::release(vf_));
  EXPECT_EQ(control_.define(migratable(vf_)), 0);
  EXPECT_EQ(control_.undefine(vf_), 0);
  EXPECT_EQ(control_.undefine(vf_), ENOENT);
}

TEST_F(DefinitionTest, RL3_VfThatIsMadeAnewInheritsNothing) {
  const std::string numvfs = "/sys/bus/pci/devices/" + sysfs::test_pfs().at(0) + "/sriov_numvfs";
  const std::string had = sysfs::read(numvfs).value();
  define_and_bind(migratable(vf_));
  ASSERT_TRUE(sysfs::write(numvfs, "0"));
  ASSERT_FALSE(sysfs::exists(vf_));
  ASSERT_TRUE(sysfs::write(numvfs, had));
  ASSERT_TRUE(sysfs::exists(vf_));
  EXPECT_EQ(control_.attach(vf_), -ENOENT);
  ASSERT_TRUE(sysfs::bind(vf_, "vfio-pci-hooks"));
  EXPECT_EQ(control_.attach(vf_), -ENOENT);
  const Guest guest(*container_, vf_);
  EXPECT_EQ(guest.device.migration_flags().error().code, ENOTTY);
}

TEST_F(DefinitionTest, RL1_ModuleCannotBeUnloadedUnderAnOpenDevice) {
  const auto unload = [] {
    return ::syscall(SYS_delete_module, "vfio_pci_hooks", O_NONBLOCK) == 0 ? 0 : errno;
  };
  define_and_bind(migratable(vf_));
  const Guest guest(*container_, vf_);
  EXPECT_EQ(unload(), EAGAIN);
  uint32_t value = 0;
  EXPECT_EQ(guest.read32(kStatus, value), 0);
}

// As a program sends it that was built before the structure grew.
TEST_F(DefinitionTest, LD1_ADefinitionOfTheFirstSizeIsTaken) {
  constexpr uint32_t kFirstSize = 128, kFirstNumber = 0x4080b501;
  vfio_pci_hooks_handler channel{};
  std::strcpy(channel.name, VFIO_PCI_HOOKS_CHANNEL_NAME);
  vfio_pci_hooks_define first{};
  first.argsz = kFirstSize;
  first.address = parse_address(vf_);
  first.vendor = 0x8086;
  first.device = 0x10ca;
  first.access_limit_ms = first.state_limit_ms = 1000;
  first.nr_handlers = 1;
  first.handlers = reinterpret_cast<uintptr_t>(&channel);
  std::memset(&first.model, 0xff, sizeof first - kFirstSize);
  EXPECT_EQ(::ioctl(control_.fd(), kFirstNumber, &first), 0) << std::strerror(errno);
  EXPECT_EQ(control_.undefine(vf_), 0);
}

struct Mistake {
  const char* name;
  std::function<void(Definition&)> make;
  int error;
};

constexpr vfio_pci_hooks_step step(uint8_t op, uint32_t offset, uint32_t timeout_us = 0, uint8_t width = 4,
                                   uint8_t slot = 0, uint8_t bar = 0) {
  return {op, bar, width, slot, offset, 0, 0, timeout_us};
}

constexpr vfio_pci_hooks_step fill(uint32_t offset, uint32_t bytes, uint8_t width = 4, uint8_t bar = 0) {
  return {VFIO_PCI_HOOKS_STEP_FILL, bar, width, 0, offset, bytes, 0, 0};
}

std::function<void(Definition&)> with_parameters(
    std::function<void(std::vector<vfio_pci_hooks_parameter>&)> make) {
  return [make](Definition& d) {
    d.model = "org.example/a";
    make(d.parameters);
  };
}

const Mistake kMistakes[] = {
    {"WrongDevice", [](Definition& d) { d.device = 0x1520; }, ENODEV},
    {"NoSuchFunction", [](Definition& d) { d.address = "0000:7f:1f.7"; }, ENODEV},
    {"UnknownFlag", [](Definition& d) { d.flags |= 1u << 31; }, EINVAL},
    {"UnknownMemoryRight", [](Definition& d) { d.guest_memory = 3; }, EINVAL},
    {"NoAccessLimit", [](Definition& d) { d.access_limit_ms = 0; }, EINVAL},
    {"EndlessAccessLimit", [](Definition& d) { d.access_limit_ms = 10001; }, EINVAL},
    {"NoStateLimit", [](Definition& d) { d.state_limit_ms = 0; }, EINVAL},
    {"EndlessStateLimit", [](Definition& d) { d.state_limit_ms = 600001; }, EINVAL},
    {"LargeShadow", [](Definition& d) { d.shadow_size = VFIO_PCI_HOOKS_MAX_SHADOW + 1; }, EINVAL},
    {"TooManyRanges", [](Definition& d) { d.ranges.assign(VFIO_PCI_HOOKS_MAX_RANGES + 1, trap()); }, EINVAL},
    {"EmptyRange", [](Definition& d) { d.ranges[0].length = 0; }, EINVAL},
    {"RangeOfNothing", [](Definition& d) { d.ranges[0].ops = 0; }, EINVAL},
    {"RangeBehindTheBar", [](Definition& d) { d.ranges[0].offset = 16 << 10; }, EINVAL},
    {"RangeThatWraps", [](Definition& d) { d.ranges[0].offset = ~uint64_t{0} - 3; }, EINVAL},
    {"RangeInAMissingBar", [](Definition& d) { d.ranges[0].region = VFIO_PCI_BAR5_REGION_INDEX; }, EINVAL},
    {"RangeInTheRom", [](Definition& d) { d.ranges[0].region = VFIO_PCI_ROM_REGION_INDEX; }, EINVAL},
    {"TooManySteps",
     [](Definition& d) {
       d.stop.assign(VFIO_PCI_HOOKS_MAX_STEPS + 1, step(VFIO_PCI_HOOKS_STEP_WRITE, 0x83c));
     },
     EINVAL},
    {"UnknownStep", [](Definition& d) { d.stop = {step(99, 0x83c)}; }, EINVAL},
    {"StepBehindTheBar", [](Definition& d) { d.stop = {step(VFIO_PCI_HOOKS_STEP_WRITE, 16 << 10)}; }, EINVAL},
    {"UnalignedStep", [](Definition& d) { d.stop = {step(VFIO_PCI_HOOKS_STEP_WRITE, 0x83e)}; }, EINVAL},
    {"StepOfEightBytes", [](Definition& d) { d.stop = {step(VFIO_PCI_HOOKS_STEP_WRITE, 0x838, 0, 8)}; },
     EINVAL},
    {"StepInAMissingBar", [](Definition& d) { d.stop = {step(VFIO_PCI_HOOKS_STEP_WRITE, 0, 0, 4, 0, 5)}; },
     EINVAL},
    {"SlotTooHigh",
     [](Definition& d) { d.stop = {step(VFIO_PCI_HOOKS_STEP_SAVE, 0x83c, 0, 4, VFIO_PCI_HOOKS_SAVED)}; },
     EINVAL},
    {"LongPoll", [](Definition& d) { d.stop = {step(VFIO_PCI_HOOKS_STEP_POLL, 8, 100001)}; }, EINVAL},
    {"LongProgram", [](Definition& d) { d.stop.assign(11, step(VFIO_PCI_HOOKS_STEP_DELAY, 0, 100000)); },
     EINVAL},
    {"ResetThatWaits", [](Definition& d) { d.reset = {step(VFIO_PCI_HOOKS_STEP_DELAY, 0, 10)}; }, EINVAL},
    {"FillBehindTheBar", [](Definition& d) { d.reset = {fill(0x3ff8, 12)}; }, EINVAL},
    {"FillOneWordBehindTheBar", [](Definition& d) { d.reset = {fill(0, 0x4004)}; }, EINVAL},
    {"FillTwice", [](Definition& d) { d.reset = {fill(0, 0), fill(0x100, 4)}; }, EINVAL},
    {"FillOfTheMsixTable", [](Definition& d) { d.reset = {fill(0, 4, 4, 3)}; }, EINVAL},
    {"FillThatWraps", [](Definition& d) { d.reset = {fill(8, 0xfffffff8)}; }, EINVAL},
    {"FillToTheEndFromBehindIt", [](Definition& d) { d.reset = {fill(0x4000, 0)}; }, EINVAL},
    {"FillOfHalfAWord", [](Definition& d) { d.reset = {fill(0, 6)}; }, EINVAL},
    {"UnalignedFill", [](Definition& d) { d.reset = {fill(2, 4)}; }, EINVAL},
    {"FillOfBytes", [](Definition& d) { d.reset = {fill(0, 4, 1)}; }, EINVAL},
    {"FillThatWaits", [](Definition& d) { d.stop = {step(VFIO_PCI_HOOKS_STEP_FILL, 0, 10)}; }, EINVAL},
    {"UnknownHandler", [](Definition& d) { d.handlers = {"no-such-handler"}; }, ENOENT},
    {"HandlerOfAPath", [](Definition& d) { d.handlers = {"../82576 dirty log", "channel"}; }, ENOENT},
    {"HandlerWithoutAName", [](Definition& d) { d.handlers = {"", "channel"}; }, EINVAL},
    {"HandlerNameThatDoesNotEnd",
     [](Definition& d) {
       d.handlers = {std::string(VFIO_PCI_HOOKS_NAME_LEN, 'a'), "channel"};
     },
     EINVAL},
    {"ChannelTwice",
     [](Definition& d) {
       d.handlers = {"channel", "channel"};
     },
     EINVAL},
    {"ParametersWithoutAModel", [](Definition& d) { d.parameters = {parameter("a", "1", "1")}; }, EINVAL},
    {"ModelWithoutMigration", [](Definition& d) { d.flags = 0, d.model = "org.example/a"; }, EINVAL},
    {"ModelThatDoesNotEnd", [](Definition& d) { d.model = std::string(VFIO_PCI_HOOKS_TEXT_LEN, 'm'); },
     EINVAL},
    {"ModelOfTwoLines", [](Definition& d) { d.model = "a\nb"; }, EINVAL},
    {"TooManyParameters", with_parameters([](auto& p) {
       for (int i = 0; i <= VFIO_PCI_HOOKS_MAX_PARAMETERS; ++i)
         p.push_back(parameter("p" + std::to_string(i), "1", "1"));
     }),
     EINVAL},
    {"ParameterTwice", with_parameters([](auto& p) { p.assign(2, parameter("a", "1", "1")); }), EINVAL},
    {"ParameterModel", with_parameters([](auto& p) { p = {parameter("model", "1", "1")}; }), EINVAL},
    {"ParameterWithoutAName", with_parameters([](auto& p) { p = {parameter("", "1", "1")}; }), EINVAL},
    {"ParameterOfAPath", with_parameters([](auto& p) { p = {parameter("a/b", "1", "1")}; }), EINVAL},
    {"ParameterOfCapitals", with_parameters([](auto& p) { p = {parameter("Queues", "1", "1")}; }), EINVAL},
    {"ParameterNameThatDoesNotEnd",
     with_parameters([](auto& p) { p = {parameter(std::string(32, 'a'), "1", "1")}; }), EINVAL},
    {"ParameterWithUnknownFlags", with_parameters([](auto& p) { p = {parameter("a", "1", "1", 2)}; }),
     EINVAL},
    {"ParameterValueNotAllowed", with_parameters([](auto& p) { p = {parameter("a", "3", "1|2")}; }), EINVAL},
    {"ParameterOffValueNotAllowed", with_parameters([](auto& p) {
       p = {parameter("a", "1", "1|2")};
       p[0].off_value[0] = '3';
     }),
     EINVAL},
    {"ParameterValueThatDoesNotEnd",
     with_parameters([](auto& p) { p = {parameter("a", std::string(64, '1'), std::string(64, '1'))}; }),
     EINVAL},
    {"ParameterValueOfTwoWords", with_parameters([](auto& p) { p = {parameter("a", "b c", "b c")}; }),
     EINVAL},
    {"ParameterThatAllowsNothing", with_parameters([](auto& p) { p = {parameter("a", "", "")}; }), EINVAL},
    {"AllowedValuesThatDoNotEnd",
     with_parameters([](auto& p) { p = {parameter("a", "1", "1|" + std::string(254, '2'))}; }), EINVAL},
    {"DescriptionOfTwoLines", with_parameters([](auto& p) {
       p = {parameter("a", "1", "1")};
       p[0].description[1] = '\n';
     }),
     EINVAL},
    {"TooManyHandlers", [](Definition& d) { d.handlers.assign(VFIO_PCI_HOOKS_MAX_HANDLERS + 1, "channel"); },
     EINVAL},
};

class MistakeTest : public HooksTest, public ::testing::WithParamInterface<Mistake> {};

TEST_P(MistakeTest, LD2_IsRefusedAndChangesNothing) {
  Definition definition = migratable(vf_);
  GetParam().make(definition);
  EXPECT_EQ(control_.define(definition), GetParam().error);
  EXPECT_EQ(control_.attach(vf_), -ENOENT);
  ASSERT_EQ(control_.define(migratable(vf_)), 0);
}

INSTANTIATE_TEST_SUITE_P(Definition, MistakeTest, ::testing::ValuesIn(kMistakes),
                         [](const auto& mistake) { return mistake.param.name; });

// argsz of a caller from the future: what it sets beyond what this kernel knows is refused, zeros are not.
TEST_F(DefinitionTest, LD1_LargerStructuresAreCheckedBeyondTheirEnd) {
  struct Larger {
    vfio_pci_hooks_undefine known;
    uint64_t unknown;
  } larger{};
  ASSERT_EQ(control_.define(migratable(vf_)), 0);
  larger.known.argsz = sizeof larger;
  larger.known.address = parse_address(vf_);
  larger.unknown = 1;
  EXPECT_EQ(::ioctl(control_.fd(), VFIO_PCI_HOOKS_UNDEFINE, &larger) == 0 ? 0 : errno, E2BIG);
  larger.unknown = 0;
  EXPECT_EQ(::ioctl(control_.fd(), VFIO_PCI_HOOKS_UNDEFINE, &larger) == 0 ? 0 : errno, 0);
}

}  // namespace
}  // namespace hookline::kernel_test
