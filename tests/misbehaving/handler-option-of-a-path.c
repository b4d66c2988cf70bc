/* SPDX-License-Identifier: Apache-2.0 */
/* An option whose in-kernel handler has no name that the kernel's definition could hold. */
#include "minimal.h"

static const struct hookline_key keys[] = {
  {.name = "dirty_tracking", .type = HOOKLINE_KEY_BOOL, .flags = HOOKLINE_KEY_HANDLER, .choices = "../82576 dirty log"}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("handler-option-of-a-path"), .keys = keys, .nr_keys = 1};
