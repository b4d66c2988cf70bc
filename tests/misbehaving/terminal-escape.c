/* SPDX-License-Identifier: Apache-2.0 */
/* A summary that would clear the administrator's screen. */
#include "minimal.h"

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("terminal-escape"), .summary = "harmless\033[2J"};
