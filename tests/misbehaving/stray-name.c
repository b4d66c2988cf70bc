/* SPDX-License-Identifier: Apache-2.0 */
/* An address instead of a name. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("stray-name"), .summary = (const char*)(uintptr_t)0x10};
