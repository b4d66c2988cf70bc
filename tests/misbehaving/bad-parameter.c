/* SPDX-License-Identifier: Apache-2.0 */
/* A state version it can be told to emit and cannot read. */
#include "minimal.h"

static int refuse(void* self) { return (void)self, -1; }
static int refuse_save(void* self, struct hookline_writer* out) { return (void)out, refuse(self); }
static int refuse_load(void* self, struct hookline_reader* in) { return (void)in, refuse(self); }

static const struct hookline_parameter parameters[] = {{.name = "state_version", .description = "Format of the state",
  .init_value = "2", .off_value = "1", .allowed_values = "1|2|3", .flags = HOOKLINE_PARAMETER_RUNTIME | HOOKLINE_PARAMETER_VERSION}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("bad-parameter"), .claims = HOOKLINE_CLAIM_MIGRATION,
  .model = "com.example/none", .migration_version = "2", .max_state = 1, .save = refuse_save, .load = refuse_load, .apply = refuse,
  .parameters = parameters, .nr_parameters = 1, .reads = "1|2"};
