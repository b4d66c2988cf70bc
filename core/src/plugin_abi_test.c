/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin ABI as numbers: a change that would break a plugin that is already built does not compile. Compiled as C11
 * here and as C++20 by plugin_abi_test.cpp. Below it a plugin in plain C, which that test runs.
 */
#include "hookline/plugin.h"

#ifdef __cplusplus
#define HOOKLINE_ASSERT(what) static_assert(what, #what)
#else
#define HOOKLINE_ASSERT(what) _Static_assert(what, #what)
#endif
#define HOOKLINE_SIZE(type, bytes) HOOKLINE_ASSERT(sizeof(struct type) == (bytes))
#define HOOKLINE_AT(type, member, bytes) HOOKLINE_ASSERT(offsetof(struct type, member) == (bytes))

HOOKLINE_ASSERT(sizeof(void*) == 8);

/* Frozen for ever. */
HOOKLINE_SIZE(hookline_abi, 24);
HOOKLINE_AT(hookline_abi, magic, 0);
HOOKLINE_AT(hookline_abi, major, 4);
HOOKLINE_AT(hookline_abi, minor, 6);
HOOKLINE_AT(hookline_abi, size, 8);
HOOKLINE_AT(hookline_abi, required, 16);

/* Frozen within major version 1: elements of arrays, and what host and plugin hand each other. */
HOOKLINE_SIZE(hookline_device_id, 4);
HOOKLINE_SIZE(hookline_range, 24);
HOOKLINE_SIZE(hookline_register, 24);
HOOKLINE_SIZE(hookline_step, 20);
HOOKLINE_AT(hookline_step, offset, 4);
HOOKLINE_AT(hookline_step, mask, 8);
HOOKLINE_AT(hookline_step, value, 12);
HOOKLINE_AT(hookline_step, timeout_us, 16);
HOOKLINE_SIZE(hookline_program, 16);
HOOKLINE_SIZE(hookline_key, 56);
HOOKLINE_SIZE(hookline_value, 24);
HOOKLINE_SIZE(hookline_parameter, 48);
HOOKLINE_AT(hookline_parameter, allowed_values, 32);
HOOKLINE_AT(hookline_parameter, flags, 40);
HOOKLINE_SIZE(hookline_access, 40);
HOOKLINE_AT(hookline_access, value, 24);
HOOKLINE_SIZE(hookline_ioctl, 32);
HOOKLINE_AT(hookline_ioctl, data, 8);
HOOKLINE_AT(hookline_ioctl, result, 24);
HOOKLINE_SIZE(hookline_event, 16);
HOOKLINE_SIZE(hookline_pf_request, 16);
HOOKLINE_SIZE(hookline_info, 16);

/* These may grow at their end. */
HOOKLINE_AT(hookline_host, log, 8);
HOOKLINE_AT(hookline_host, run_rest, 40);
HOOKLINE_AT(hookline_host, start_once, 80);
HOOKLINE_AT(hookline_host, put, 104);
HOOKLINE_AT(hookline_host, now_ns, 128);
HOOKLINE_AT(hookline_host, parameter, 136);
HOOKLINE_AT(hookline_host, stream_version, 144);
HOOKLINE_AT(hookline_host, touched, 152);
HOOKLINE_AT(hookline_host, reserve, 160);
HOOKLINE_AT(hookline_host, view, 168);
HOOKLINE_AT(hookline_plugin, name, 24);
HOOKLINE_AT(hookline_plugin, devices, 64);
HOOKLINE_AT(hookline_plugin, nr_devices, 96);
HOOKLINE_AT(hookline_plugin, stop, 112);
HOOKLINE_AT(hookline_plugin, ops_known, 160);
HOOKLINE_AT(hookline_plugin, max_state, 176);
HOOKLINE_AT(hookline_plugin, open, 192);
HOOKLINE_AT(hookline_plugin, apply, 248);
HOOKLINE_AT(hookline_plugin, parameters, 256);
HOOKLINE_AT(hookline_plugin, nr_parameters, 264);
HOOKLINE_AT(hookline_plugin, reads, 272);
HOOKLINE_AT(hookline_plugin, save_bulk, 280);
HOOKLINE_AT(hookline_plugin, bulk_sizes, 288);
HOOKLINE_AT(hookline_plugin, load_bulk, 296);
HOOKLINE_AT(hookline_plugin, max_bulk, 304);
HOOKLINE_ASSERT(sizeof(struct hookline_plugin) >= 312);

#ifndef __cplusplus
static int plain_open(const struct hookline_host* host, struct hookline_device* dev, const struct hookline_info* info,
                      const struct hookline_value* values, void** self) {
  (void)info;
  (void)values;
  *self = dev;
  host->log(dev, HOOKLINE_LOG_INFO, "plain C is here");
  return 0;
}

static void plain_close(void* self) { (void)self; }

static int plain_access(void* self, struct hookline_access* access) {
  (void)self;
  access->value = 0xc11;
  return access->op == HOOKLINE_OP_READ ? HOOKLINE_HANDLED : HOOKLINE_PASS;
}

static const struct hookline_range plain_ranges[] = {{.region = 0, .ops = HOOKLINE_WANT_READ, .offset = 8, .length = 4}};

const struct hookline_plugin hookline_plugin_v1 = {
    HOOKLINE_ABI,
    .name = "plain",
    .version = "1.0",
    .ranges = plain_ranges,
    .nr_ranges = 1,
    .ops_known = HOOKLINE_OPS_KNOWN,
    .open = plain_open,
    .close = plain_close,
    .access = plain_access,
};
#endif
