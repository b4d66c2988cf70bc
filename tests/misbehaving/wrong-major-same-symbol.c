/* SPDX-License-Identifier: Apache-2.0 */
/* Says another major version under this one's name. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {
    .abi = {.magic = HOOKLINE_ABI_MAGIC, .major = 0, .minor = 9, .size = sizeof(struct hookline_plugin)},
    MINIMAL("wrong-major-same-symbol")};
