/* SPDX-License-Identifier: Apache-2.0 */
/* An option that puts an in-kernel handler into the chain 3 times. */
#include "minimal.h"

static const struct hookline_key keys[] = {
  {.name = "dirty_tracking", .type = HOOKLINE_KEY_UINT, .flags = HOOKLINE_KEY_HANDLER, .choices = "82576-dirty-log"}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("handler-option-of-numbers"), .keys = keys, .nr_keys = 1};
