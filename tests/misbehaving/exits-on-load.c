/* SPDX-License-Identifier: Apache-2.0 */
/* Has code that runs as it is loaded, and ends the process with success. */
#include <unistd.h>

#include "minimal.h"

__attribute__((constructor)) static void leave(void) { _exit(0); }

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("exits-on-load")};
