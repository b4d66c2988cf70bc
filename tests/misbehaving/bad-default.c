/* SPDX-License-Identifier: Apache-2.0 */
/* An option whose default it would not take itself. */
#include "minimal.h"

static const struct hookline_key keys[] = {{.name = "speed", .type = HOOKLINE_KEY_CHOICE, .choices = "slow|fast", .default_value = "medium"}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("bad-default"), .keys = keys, .nr_keys = 1};
