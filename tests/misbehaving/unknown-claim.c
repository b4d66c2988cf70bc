/* SPDX-License-Identifier: Apache-2.0 */
/* Claims something this host never heard of. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("unknown-claim"), .claims = 1u << 5};
