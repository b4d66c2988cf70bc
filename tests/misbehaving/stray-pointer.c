/* SPDX-License-Identifier: Apache-2.0 */
/* A count without what it counts: whoever follows it reads far outside. */
#include "minimal.h"

static const struct hookline_register registers[] = {{.name = "CTRL", .width = 4}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("stray-pointer"), .registers = registers, .nr_registers = 1u << 31};
