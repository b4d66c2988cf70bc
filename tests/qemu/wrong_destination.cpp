// SPDX-License-Identifier: Apache-2.0
//
// A plugin that a guest of nic-82576 must not be migrated to. What differs is given when it is compiled: BASE, OTHER_NAME,
// OTHER_MODEL, OTHER_VERSION.
#include <hookline/plugin.hpp>

namespace {

using namespace hookline;

class WrongDestination final : public BASE {
 public:
  explicit WrongDestination(Device&) {}
  void save(SectionWriter& out) override { out.u32("nothing", 0); }
  void load(SectionReader& in) override { in.u32("nothing", in_range(0, 0)); }
  void apply() override {}
};

}  // namespace

// A migration owner has the parameter of nic-82576.
#ifdef OWNER
#define OTHER_PARAMETERS                                                                    \
  {{"state_version", "Format of the state", OTHER_VERSION, OTHER_VERSION, OTHER_VERSION, \
    HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION, 0}}
#else
#define OTHER_PARAMETERS {}
#endif

HOOKLINE_PLUGIN(WrongDestination, {.name = OTHER_NAME,
                                   .version = "1.0",
                                   .summary = "for tests of destinations that do not fit",
                                   .model = OTHER_MODEL,
                                   .migration_version = OTHER_VERSION,
                                   .devices = {{0x8086, 0x10ca}},
                                   .parameters = OTHER_PARAMETERS,
                                   .max_state = 4096});
