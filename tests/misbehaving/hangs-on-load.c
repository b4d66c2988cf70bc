/* SPDX-License-Identifier: Apache-2.0 */
/* Has code that runs as it is loaded, and never comes back. */
#include <unistd.h>

#include "minimal.h"

__attribute__((constructor)) static void hang(void) {
  for (;;) pause();
}

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("hangs-on-load")};
