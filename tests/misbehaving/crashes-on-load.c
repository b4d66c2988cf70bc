/* SPDX-License-Identifier: Apache-2.0 */
/* Has code that runs as it is loaded, and dies in it. */
#include <signal.h>

#include "minimal.h"

__attribute__((constructor)) static void crash(void) { raise(SIGKILL); }

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("crashes-on-load")};
