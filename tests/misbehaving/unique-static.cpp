// SPDX-License-Identifier: Apache-2.0
//
// Built without hidden visibility: the dynamic linker shares the static variable of an inline function between plugins.
#include <hookline/plugin.hpp>

inline int& shared_by_accident() {
  static int counter = 0;
  return counter;
}

namespace {

class UniqueStatic final : public hookline::Handler {
 public:
  explicit UniqueStatic(hookline::Device&) { ++shared_by_accident(); }
};

}  // namespace

HOOKLINE_PLUGIN(UniqueStatic, {.name = "unique-static", .version = "1", .unknown_op = HOOKLINE_UNKNOWN_PASS});
