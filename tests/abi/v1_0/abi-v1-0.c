/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin as of ABI 1.0: every field of that version is set to something a test can find again. */
#include "hookline/plugin.h"

static int state;

static int old_open(const struct hookline_host* host, struct hookline_device* dev, const struct hookline_info* info,
                    const struct hookline_value* values, void** self) {
  (void)host, (void)dev, (void)info;
  if (!values[0].is_set || values[0].number != 7) return -22;
  *self = &state;
  return 0;
}
static void old_close(void* self) { (void)self; }
static int old_access(void* self, struct hookline_access* access) {
  if (self != &state || access->op != HOOKLINE_OP_READ) return HOOKLINE_PASS;
  access->value = 0x10;
  return HOOKLINE_HANDLED;
}
static int old_ioctl(void* self, struct hookline_ioctl* request) {
  (void)self, (void)request;
  return HOOKLINE_PASS;
}
static void old_event(void* self, const struct hookline_event* event) { (void)self, (void)event; }
static int old_save(void* self, struct hookline_writer* out) {
  (void)self, (void)out;
  return 0;
}
static int old_load(void* self, struct hookline_reader* in) {
  (void)self, (void)in;
  return 0;
}
static int old_apply(void* self) {
  (void)self;
  return 0;
}

static const struct hookline_device_id devices[] = {{0x8086, 0x10ca}};
static const struct hookline_range ranges[] = {{0, HOOKLINE_WANT_READ, 0x10, 4}};
static const struct hookline_register registers[] = {{"OLD", 0, 0x10, 4}};
static const struct hookline_key keys[] = {{"seven", "Seven", "7", NULL, HOOKLINE_KEY_UINT, 0, 7, 7}};
static const struct hookline_step stop[] = {{HOOKLINE_STEP_SAVE, 0, 4, 1, 0x10, 0, 0, 0}};
static const struct hookline_step start[] = {{HOOKLINE_STEP_RESTORE, 0, 4, 1, 0x10, 0, 0, 0}};
static const struct hookline_step reset[] = {{HOOKLINE_STEP_WRITE, 0, 4, 0, 0x10, 0, 9, 0}};

const struct hookline_plugin hookline_plugin_v1 = {
    HOOKLINE_ABI,
    .name = "abi-v1-0",
    .version = "1.0",
    .summary = "Built against the first header",
    .model = "com.example/old",
    .migration_version = "old",
    .devices = devices,
    .ranges = ranges,
    .registers = registers,
    .keys = keys,
    .nr_devices = 1,
    .nr_ranges = 1,
    .nr_registers = 1,
    .nr_keys = 1,
    .stop = {stop, 1, 0},
    .start = {start, 1, 0},
    .reset = {reset, 1, 0},
    .ops_known = HOOKLINE_OPS_KNOWN,
    .unknown_op = HOOKLINE_UNKNOWN_REFUSE,
    .claims = HOOKLINE_CLAIM_MIGRATION,
    .shadow_size = 128,
    .max_state = 4096,
    .ioctls = 2,
    .features = 4,
    .open = old_open,
    .close = old_close,
    .access = old_access,
    .ioctl = old_ioctl,
    .event = old_event,
    .save = old_save,
    .load = old_load,
    .apply = old_apply,
};
