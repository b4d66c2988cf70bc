/* SPDX-License-Identifier: Apache-2.0 */
/* The parts every plugin of this folder has; what is wrong with each of them stands in its own file. */
#ifndef HOOKLINE_TESTS_MINIMAL_H
#define HOOKLINE_TESTS_MINIMAL_H

#include <hookline/plugin.h>

static inline int minimal_open(const struct hookline_host* host, struct hookline_device* dev, const struct hookline_info* info,
                               const struct hookline_value* values, void** self) {
  (void)host, (void)dev, (void)info, (void)values;
  *self = (void*)0;
  return 0;
}
static inline void minimal_close(void* self) { (void)self; }

/* An observer that observes nothing. Later initialisers may follow. */
#define MINIMAL(plugin_name)                                                                                       \
  .name = plugin_name, .version = "1", .ops_known = HOOKLINE_OPS_KNOWN, .unknown_op = HOOKLINE_UNKNOWN_PASS,        \
  .open = minimal_open, .close = minimal_close

#endif
