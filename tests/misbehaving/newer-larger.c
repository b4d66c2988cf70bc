/* SPDX-License-Identifier: Apache-2.0 */
/* Built against a later minor version: the plugin object goes on behind what this host knows. */
#include "minimal.h"

struct newer {
  struct hookline_plugin known;
  const char* later;
};
/* The header declares the symbol with today's type. */
__attribute__((visibility("default"))) const struct newer newer_plugin __asm__("hookline_plugin_v1") = {
    .known = {.abi = {.magic = HOOKLINE_ABI_MAGIC, .major = 1, .minor = 7, .size = sizeof(struct newer)}, MINIMAL("newer-larger")},
    .later = "what a later host would read",
};
