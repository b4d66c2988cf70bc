/* SPDX-License-Identifier: Apache-2.0 */
/* The right name on something else. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {
    .abi = {.magic = 0x12345678, .major = 1, .size = sizeof(struct hookline_plugin)}, MINIMAL("wrong-magic")};
