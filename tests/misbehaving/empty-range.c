/* SPDX-License-Identifier: Apache-2.0 */
/* Traps nothing, at the end of the address space. */
#include "minimal.h"

static int take(void* self, struct hookline_access* access) { (void)self, (void)access; return HOOKLINE_PASS; }
static const struct hookline_range ranges[] = {{.region = 0, .ops = HOOKLINE_WANT_WRITE, .offset = UINT64_MAX, .length = 16}};

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("empty-range"), .access = take, .ranges = ranges, .nr_ranges = 1};
