/* SPDX-License-Identifier: Apache-2.0 */
/* Says it is larger than it is: reading all of it would leave the object. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {
    .abi = {.magic = HOOKLINE_ABI_MAGIC, .major = 1, .size = 1 << 20}, MINIMAL("wrong-size")};
