// SPDX-License-Identifier: Apache-2.0
//
// A second migration owner. It has to read guest memory, and one option has to be given.
#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

class GpuToy final : public MigrationOwner {
 public:
  explicit GpuToy(Device&) {}
  void save(SectionWriter&) override {}
  void load(SectionReader&) override {}
  void apply() override {}
};

}  // namespace

HOOKLINE_PLUGIN(GpuToy, {
    .name = "gpu-toy",
    .version = "0.9-rc1",
    .summary = "A graphics card that nobody built",
    .model = "com.example/gpu-toy",
    .migration_version = "1",
    .keys = {{"heads", "How many screens there are", nullptr, nullptr, HOOKLINE_KEY_UINT, HOOKLINE_KEY_REQUIRED, 1, 4}},
    .max_state = 1 << 20,
    .required = HOOKLINE_REQUIRE_IOVA_READ,
});
