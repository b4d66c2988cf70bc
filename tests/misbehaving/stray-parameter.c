/* SPDX-License-Identifier: Apache-2.0 */
/* A parameter whose description is an address. */
#include "minimal.h"

static const struct hookline_parameter parameters[] = {{.name = "queues", .description = (const char*)(uintptr_t)0x10,
  .init_value = "1", .off_value = "1", .allowed_values = "1-8"}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("stray-parameter"), .parameters = parameters, .nr_parameters = 1};
