/* SPDX-License-Identifier: Apache-2.0 */
/* Built against the next major version, of which this host knows the header alone. */
#include "minimal.h"

__attribute__((visibility("default"))) const struct hookline_abi hookline_plugin_v2 = {
    .magic = HOOKLINE_ABI_MAGIC, .major = 2, .minor = 0, .size = 4096};
