/* SPDX-License-Identifier: Apache-2.0 */
/* Cannot live without something this host never heard of. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {
    .abi = {.magic = HOOKLINE_ABI_MAGIC, .major = 1, .size = sizeof(struct hookline_plugin),
            .required = HOOKLINE_REQUIRE_PF | UINT64_C(1) << 40},
    MINIMAL("missing-feature")};
