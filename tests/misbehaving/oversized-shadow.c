/* SPDX-License-Identifier: Apache-2.0 */
/* Wants more shadow memory than there is. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("oversized-shadow"), .shadow_size = 1 << 20};
