/* SPDX-License-Identifier: Apache-2.0 */
/* An option that puts an in-kernel handler into the chain and does not say which. */
#include "minimal.h"

static const struct hookline_key keys[] = {{.name = "dirty_tracking", .type = HOOKLINE_KEY_BOOL, .flags = HOOKLINE_KEY_HANDLER}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("handler-option-without-name"), .keys = keys, .nr_keys = 1};
