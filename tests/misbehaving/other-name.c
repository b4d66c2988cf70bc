/* SPDX-License-Identifier: Apache-2.0 */
/* A file that was renamed. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("its-own-name")};
