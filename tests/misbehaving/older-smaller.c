/* SPDX-License-Identifier: Apache-2.0 */
/* Built when the plugin object ended before save(). What stands there in memory belongs to somebody else. */
#include "minimal.h"

static int somebody_elses(void* self, struct hookline_writer* out) { (void)self, (void)out; return -1; }

const struct hookline_plugin hookline_plugin_v1 = {
    .abi = {.magic = HOOKLINE_ABI_MAGIC, .major = 1, .minor = 0, .size = offsetof(struct hookline_plugin, save)},
    MINIMAL("older-smaller"),
    .save = somebody_elses,
};
