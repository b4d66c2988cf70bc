/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin object is filled in at run time: nothing of it stands in the file. */
#include "minimal.h"

struct hookline_plugin filled_later __asm__("hookline_plugin_v1") __attribute__((visibility("default")));
